//! Keeps the tables of `docs/translation.md` true: they are measured, by decoding and encoding a request without a field
//! and the same request with it.
//!
//! `UPDATE_DOCS=1` writes them; without it they are compared. What is left out needs its reason in [`reasons`], so that
//! nothing vanishes by accident. A new field of the internal form does not compile before it is in [`internal`] and needs
//! its row in [`features`]; a new field of a client's dialect needs its row in [`fields`].
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod coverage;
mod difference;
mod features;
mod fields;
mod internal;
mod reasons;
mod upstreams;

use std::path::PathBuf;

/// What texts carry whose way is followed.
const PROBE: &str = "PROBE";
/// The same in base64.
const PROBE_BASE64: &str = "UFJPQkU=";

/// Its name in the document, and what writes it.
type Table = (&'static str, fn() -> String);

/// The tables of the document, by the word of their markers.
const TABLES: [Table; 2] = [
    ("clients", clients::tables),
    ("upstreams", upstreams::tables),
];

#[test]
fn the_tables_of_the_document_are_what_the_dialects_do() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/translation.md");
    let mut document = std::fs::read_to_string(&path).unwrap();
    let is_update = std::env::var_os("UPDATE_DOCS").is_some();
    for (word, tables) in TABLES {
        let [begin, end] = ["begin", "end"].map(|edge| {
            format!("<!-- {edge}: {word}, written by crates/protocol/tests/translation_doc -->")
        });
        let (head, rest) = document.split_once(&begin).unwrap_or_else(|| {
            panic!("docs/translation.md has lost the comment that begins the tables of {word}")
        });
        let (written, tail) = rest.split_once(&end).unwrap_or_else(|| {
            panic!("docs/translation.md has lost the comment that ends the tables of {word}")
        });
        let tables = format!("\n\n{}\n", tables());
        if !is_update {
            assert!(
                written == tables,
                "the tables of docs/translation.md are out of date: write them with\n\
                 UPDATE_DOCS=1 cargo test --release -p holdfast-protocol --test translation_doc\n{}",
                first_difference(written, &tables)
            );
        }
        document = format!("{head}{begin}{tables}{end}{tail}");
    }
    if is_update {
        std::fs::write(&path, document).unwrap();
    }
}

fn first_difference(written: &str, expected: &str) -> String {
    written
        .lines()
        .zip(expected.lines())
        .find(|(written, expected)| written != expected)
        .map_or_else(
            || "one of them is longer".to_owned(),
            |(written, expected)| format!("  document: {written}\n  measured: {expected}"),
        )
}

/// A line of a table.
fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// The first lines of a table.
fn heading(columns: &[String]) -> String {
    format!(
        "{}|{}|\n",
        row(columns),
        vec!["---"; columns.len()].join("|")
    )
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn has_probe(text: &str) -> bool {
    text.contains(PROBE) || text.contains(PROBE_BASE64)
}
