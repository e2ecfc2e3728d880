//! Tables as CSV and as Parquet.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DoubleType, FixedLenByteArray, FixedLenByteArrayType,
    Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::Value;

use super::columns::{Table, Type, text};

/// Digits of an amount behind the point.
const SCALE: usize = 12;

/// Rows that a reader can take at once.
const ROW_GROUP_ROWS: usize = 100_000;

/// RFC 4180, with a header.
pub(super) fn csv(table: &Table) -> io::Result<String> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(table.columns.iter().map(|column| column.name()))?;
    for row in &table.rows {
        writer.write_record(row.iter().map(cell))?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// A value as a text that no spreadsheet takes for a formula: a model's name is the client's to choose.
fn cell(value: &Value) -> String {
    let text = text(value);
    let is_number = text.parse::<f64>().is_ok();
    if !is_number && text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        return format!("'{text}");
    }
    text
}

/// A file with a column for each; amounts are exact decimals.
pub(super) fn parquet(table: &Table, path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    write_parquet(table, &mut file).map_err(io::Error::other)?;
    file.sync_all()
}

fn write_parquet(table: &Table, file: &mut (impl Write + Send)) -> Result<(), ParquetError> {
    let mut schema = "message usage {\n".to_owned();
    for column in &table.columns {
        let name = column.name();
        schema.push_str(&match column.kind {
            Type::Text => format!("optional binary {name} (UTF8);\n"),
            Type::Count => format!("optional int64 {name};\n"),
            Type::Amount => {
                format!("optional fixed_len_byte_array(16) {name} (DECIMAL(38, {SCALE}));\n")
            }
            Type::Share => format!("optional double {name};\n"),
            Type::Flag => format!("optional boolean {name};\n"),
        });
    }
    schema.push('}');
    let schema = Arc::new(parse_message_type(&schema)?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .build();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    for rows in table.rows.chunks(ROW_GROUP_ROWS) {
        let mut group = writer.next_row_group()?;
        for (number, column) in table.columns.iter().enumerate() {
            let Some(mut out) = group.next_column()? else {
                break;
            };
            let cells: Vec<&Value> = rows.iter().map(|row| &row[number]).collect();
            write_column(&mut out, column.kind, &cells)?;
            out.close()?;
        }
        group.close()?;
    }
    writer.close()?;
    Ok(())
}

fn write_column(
    out: &mut SerializedColumnWriter<'_>,
    kind: Type,
    cells: &[&Value],
) -> Result<(), ParquetError> {
    match kind {
        Type::Text => {
            let (values, levels) = present(cells, |cell| {
                Some(ByteArray::from(text(cell).into_bytes())).filter(|_| !cell.is_null())
            });
            out.typed::<ByteArrayType>()
                .write_batch(&values, Some(&levels), None)?;
        }
        Type::Count => {
            let (values, levels) = present(cells, Value::as_i64);
            out.typed::<Int64Type>()
                .write_batch(&values, Some(&levels), None)?;
        }
        Type::Amount => {
            let (values, levels) = present(cells, |cell| {
                let bytes = unscaled(cell.as_str()?)?.to_be_bytes().to_vec();
                Some(FixedLenByteArray::from(ByteArray::from(bytes)))
            });
            out.typed::<FixedLenByteArrayType>()
                .write_batch(&values, Some(&levels), None)?;
        }
        Type::Share => {
            let (values, levels) = present(cells, Value::as_f64);
            out.typed::<DoubleType>()
                .write_batch(&values, Some(&levels), None)?;
        }
        Type::Flag => {
            let (values, levels) = present(cells, Value::as_bool);
            out.typed::<BoolType>()
                .write_batch(&values, Some(&levels), None)?;
        }
    }
    Ok(())
}

/// The values that are there, and for each cell whether it has one.
fn present<T>(cells: &[&Value], read: impl Fn(&Value) -> Option<T>) -> (Vec<T>, Vec<i16>) {
    let read: Vec<Option<T>> = cells.iter().map(|cell| read(cell)).collect();
    let levels = read
        .iter()
        .map(|value| i16::from(value.is_some()))
        .collect();
    (read.into_iter().flatten().collect(), levels)
}

/// A decimal number as a whole number of trillionths.
fn unscaled(text: &str) -> Option<i128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > SCALE {
        return None;
    }
    format!("{whole}{part:0<SCALE$}").parse().ok()
}

#[cfg(test)]
mod tests;
