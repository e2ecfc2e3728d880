//! What is wrong with a configuration, shown where it is wrong.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the file it is about; `None` for flags, variables and the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// Everything that is wrong with a configuration. Prints each problem with its file, line, column and a caret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// The file as the user named it; empty without a file.
    pub file: String,
    /// Its text.
    pub text: String,
    /// In order of place; those without a place first.
    pub problems: Vec<Problem>,
    /// What is wrong with other files that it names.
    pub others: Vec<ConfigErrors>,
}

/// A problem's place in the file, both counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// Collects problems while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
    others: Vec<ConfigErrors>,
}

impl Problems {
    pub(super) fn add(&mut self, span: Option<Range<usize>>, message: impl Into<String>) {
        self.found.push(Problem {
            span,
            message: message.into(),
            help: None,
        });
    }

    pub(super) fn add_with_help(
        &mut self,
        span: Option<Range<usize>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.found.push(Problem {
            span,
            message: message.into(),
            help: Some(help.into()),
        });
    }

    /// What is wrong with files that this one names.
    pub(super) fn add_others(&mut self, others: Vec<ConfigErrors>) {
        self.others.extend(others);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty() && self.others.is_empty()
    }

    pub(super) fn into_errors(mut self, file: &str, text: &str) -> ConfigErrors {
        self.found
            .sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        ConfigErrors {
            file: file.to_owned(),
            text: text.to_owned(),
            problems: self.found,
            others: self.others,
        }
    }
}

impl ConfigErrors {
    /// Where a problem is.
    pub fn place(&self, problem: &Problem) -> Option<Place> {
        let start = problem.span.as_ref()?.start;
        let before = self.text.get(..start)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some(Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        })
    }
}

impl ConfigErrors {
    /// Each problem in one line with its file, line and column, but without the text of the line, which may hold what is
    /// meant to be secret: for logs and answers.
    pub fn brief(&self) -> Vec<String> {
        let own = self.problems.iter().map(|problem| {
            let message = match &problem.help {
                Some(help) => format!("{} ({help})", problem.message),
                None => problem.message.clone(),
            };
            match self.place(problem) {
                Some(place) => format!("{}:{}:{}: {message}", self.file, place.line, place.column),
                None => message,
            }
        });
        own.chain(self.others.iter().flat_map(ConfigErrors::brief))
            .collect()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            writeln!(f, "error: {}", problem.message)?;
            let indent = match (&problem.span, self.place(problem)) {
                (Some(span), Some(place)) => write_excerpt(f, &self.file, &self.text, span, place)?,
                _ => 1,
            };
            if let Some(help) = &problem.help {
                writeln!(f, "{:indent$}= help: {help}", "")?;
            }
        }
        for errors in &self.others {
            write!(f, "\n{errors}")?;
        }
        Ok(())
    }
}

/// Writes the offending line and a caret below it; returns how far the help is to be indented.
fn write_excerpt(
    f: &mut fmt::Formatter<'_>,
    file: &str,
    text: &str,
    span: &Range<usize>,
    place: Place,
) -> Result<usize, fmt::Error> {
    let line = text.lines().nth(place.line - 1).unwrap_or_default();
    // A tab has no width one could count on, so that the caret's line is shown with spaces in their place.
    let line = line.replace('\t', " ");
    let spanned = text.get(span.clone()).unwrap_or_default();
    let width = spanned
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        .max(1);
    let gutter = place.line.to_string().len();
    let blank = " ".repeat(gutter);
    writeln!(f, "{blank}--> {file}:{}:{}", place.line, place.column)?;
    writeln!(f, "{blank} |")?;
    writeln!(f, "{} | {line}", place.line)?;
    writeln!(
        f,
        "{blank} | {}{}",
        " ".repeat(place.column - 1),
        "^".repeat(width)
    )?;
    Ok(gutter + 1)
}

/// The known word closest to what was typed, if it is close enough to be meant.
pub(super) fn closest<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|word| (edit_distance(&typed, word), word))
        .filter(|(distance, word)| *distance <= 1 + word.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for row in 1..=from.len() {
        let mut current = vec![row; to.len() + 1];
        for column in 1..=to.len() {
            let differs = usize::from(from[row - 1] != to[column - 1]);
            let mut best = (last[column] + 1)
                .min(current[column - 1] + 1)
                .min(last[column - 1] + differs);
            let swapped = row > 1
                && column > 1
                && from[row - 1] == to[column - 2]
                && from[row - 2] == to[column - 1];
            if swapped {
                best = best.min(before_last[column - 2] + 1);
            }
            current[column] = best;
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[to.len()]
}
