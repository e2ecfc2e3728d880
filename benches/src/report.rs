//! Tables on standard output, progress on standard error.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

/// A line of the result.
pub fn say(line: &str) {
    // A reader that has gone away does not want the rest.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line about what is going on, not part of the result.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A Markdown table.
#[derive(Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(head: &[&str]) -> Self {
        Table {
            head: head.iter().map(|&title| title.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; missing cells are empty.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints it with an empty line on each side.
    pub fn print(&self) {
        say("");
        say(&self.to_markdown());
        say("");
    }

    /// The table as text.
    pub fn to_markdown(&self) -> String {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .chain([&self.head[column]])
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let mut text = String::new();
        for row in [&self.head, &rule].into_iter().chain(&self.rows) {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push('|');
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                // Writing to a string can't fail.
                let _ = write!(text, " {cell:<width$} |");
            }
        }
        text
    }
}

/// `71 ms`, `6.42 s`.
pub fn time(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    match milliseconds {
        0.0..10.0 => format!("{milliseconds:.2} ms"),
        10.0..1000.0 => format!("{milliseconds:.0} ms"),
        _ => format!("{:.2} s", milliseconds / 1e3),
    }
}

/// `86x`: how many times `slow` takes as long as `fast`.
pub fn times_faster(slow: Duration, fast: Duration) -> String {
    format!("{:.1}x", slow.as_secs_f64() / fast.as_secs_f64())
}

/// `1.08x` of two numbers.
pub fn ratio(ours: f64, theirs: f64) -> String {
    format!("{:.2}x", ours / theirs)
}

/// `611`, or `47.4` where that is not exact enough.
pub fn rate(per_second: f64) -> String {
    if per_second < 100.0 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

/// `305 MiB`.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["prompt", "cold"]);
        table.row(vec!["512".into(), "1.20 s".into()]);
        table.row(vec!["7,500".into()]);
        let expected =
            "| prompt | cold   |\n| ------ | ------ |\n| 512    | 1.20 s |\n| 7,500  |        |";
        assert_eq!(table.to_markdown(), expected);
    }

    #[test]
    fn times_have_three_digits_or_so() {
        assert_eq!(time(Duration::from_micros(1234)), "1.23 ms");
        assert_eq!(time(Duration::from_millis(71)), "71 ms");
        assert_eq!(time(Duration::from_millis(6420)), "6.42 s");
        assert_eq!(
            times_faster(Duration::from_secs(10), Duration::from_millis(100)),
            "100.0x"
        );
    }
}
