#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::json;

use super::super::columns::{self, Table};
use super::*;

fn table() -> Table {
    let items = [
        json!({
            "day": "2026-11-30", "model": "=a,\"b\"", "requests": 3, "hit_rate": 0.5, "cache_writes": {"5m": 7},
            "money": [
                {"currency": "CNY", "cost": "1.5", "saved": "-0.25"},
                {"currency": "USD", "cost": "0.000000000001", "saved": "12"},
            ],
        }),
        json!({"day": "2026-12-01", "model": null, "requests": 1, "money": []}),
    ];
    Table::new(columns::of_groups("day,model"), &items)
}

#[test]
fn csv_has_a_line_for_each_currency_and_nothing_twice() {
    let csv = csv(&table()).unwrap();
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(lines.len(), 5, "a header, three lines, and the end");
    assert!(lines[0].starts_with("day,model,requests,completed,"));
    assert!(lines[0].ends_with(",currency,cost,storage_cost,saved"));
    assert!(
        lines[1].starts_with("2026-11-30,\"'=a,\"\"b\"\"\",3,"),
        "{}",
        lines[1]
    );
    assert!(lines[1].ends_with(",CNY,1.5,,-0.25"));
    assert!(
        lines[2].starts_with("2026-11-30,\"'=a,\"\"b\"\"\",,"),
        "{}",
        lines[2]
    );
    assert!(lines[2].ends_with(",USD,0.000000000001,,12"));
    assert!(lines[3].starts_with("2026-12-01,,1,"));
}

#[test]
fn parquet_is_read_back_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("usage.parquet");
    let table = table();
    parquet(&table, &path).unwrap();
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let names: Vec<String> = table.columns.iter().map(|column| column.name()).collect();
    let at = |name: &str| names.iter().position(|known| known == name).unwrap();
    let rows: Vec<_> = reader
        .get_row_iter(None)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].get_string(at("model")).unwrap(), "=a,\"b\"");
    assert_eq!(rows[0].get_long(at("requests")).unwrap(), 3);
    assert_eq!(rows[0].get_long(at("cache_writes_5m")).unwrap(), 7);
    let amount = |row: usize, name: &str| {
        let decimal = rows[row].get_decimal(at(name)).unwrap();
        let bytes: [u8; 16] = decimal.data().try_into().unwrap();
        (i128::from_be_bytes(bytes), decimal.scale())
    };
    assert_eq!(amount(0, "cost"), (1_500_000_000_000, 12));
    assert_eq!(amount(0, "saved"), (-250_000_000_000, 12));
    assert_eq!(amount(1, "cost"), (1, 12));
    assert!(rows[1].get_long(at("requests")).is_err(), "null");
    assert!(rows[2].get_string(at("model")).is_err(), "null");
}

#[test]
fn amounts_become_whole_numbers_of_trillionths() {
    for (text, trillionths) in [
        ("0", Some(0)),
        ("-0.5", Some(-500_000_000_000)),
        ("1.000000000001", Some(1_000_000_000_001)),
        ("1.0000000000001", None),
        ("much", None),
    ] {
        assert_eq!(unscaled(text), trillionths, "{text}");
    }
}
