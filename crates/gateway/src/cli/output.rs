//! The only module that writes to standard output and standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::config::Environment;
use crate::models::Progress;

use super::Failure;

/// How this process talks to people and programs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    /// Standard output is a terminal that shows colours.
    colour_out: bool,
    /// Standard error is.
    colour_error: bool,
    /// Standard error is a terminal, so that lines on it can be drawn over.
    draws: bool,
}

impl Output {
    pub(super) fn of_process(environment: &Environment) -> Self {
        let wanted =
            environment.get("NO_COLOR").is_none() && environment.get("TERM") != Some("dumb");
        let draws = io::stderr().is_terminal();
        Output {
            colour_out: wanted && io::stdout().is_terminal(),
            colour_error: wanted && draws,
            draws,
        }
    }

    /// A line of the result.
    pub(super) fn line(&self, text: &str) {
        self.raw(&format!("{text}\n"));
    }

    /// A piece of the result, shown at once.
    pub(super) fn raw(&self, text: &str) {
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if let Err(error) = written
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            // The reader has seen enough (`holdfast context list | head`).
            std::process::exit(0);
        }
    }

    /// The result for programs.
    pub(super) fn json(&self, value: &Value) {
        self.line(&format!("{value:#}"));
    }

    /// The result as columns; nothing but the note when there are no rows.
    pub(super) fn table(&self, header: &[&str], rows: Vec<Vec<String>>, when_empty: &str) {
        if rows.is_empty() {
            self.note(when_empty);
            return;
        }
        let mut table = Table::new();
        table.load_style(NOTHING);
        // A narrow terminal must not cut ids that people copy.
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header.to_vec());
        for row in rows {
            table.add_row(row.iter().map(|cell| plain(cell)));
        }
        for (index, line) in table.lines().enumerate() {
            let line = line.strip_prefix(' ').unwrap_or(&line).trim_end();
            // Styled here and not in the cells, whose width would count the escapes.
            self.line(&if index == 0 {
                self.bold(line)
            } else {
                line.to_owned()
            });
        }
    }

    /// Something worth knowing beside the result.
    pub(super) fn note(&self, text: &str) {
        write_error(&format!("{text}\n"));
    }

    /// As a note, but not to be read each time.
    pub(super) fn aside(&self, text: &str) {
        self.note(&self.styled_error("2", text));
    }

    pub(super) fn failure(&self, failure: &Failure) {
        if failure.is_rendered {
            self.note(&failure.message);
        } else {
            self.note(&format!(
                "{} {}",
                self.styled_error("1;31", "error:"),
                failure.message
            ));
        }
        if let Some(help) = &failure.help {
            self.note(&format!("  {} {help}", self.styled_error("1", "try:")));
        }
    }

    pub(super) fn bold(&self, text: &str) -> String {
        styled(self.colour_out, "1", text)
    }

    /// A word with the colour of its meaning: ok, warn or fail.
    pub(super) fn verdict(&self, word: &str) -> String {
        let code = match word.trim_end() {
            "ok" => "32",
            "warn" => "33",
            _ => "31",
        };
        styled(self.colour_out, code, word)
    }

    pub(super) fn has_colour(&self) -> bool {
        self.colour_error
    }

    fn styled_error(&self, code: &str, text: &str) -> String {
        styled(self.colour_error, code, text)
    }

    /// Progress of something with steps.
    pub(super) fn progress(&self) -> Bars {
        Bars {
            draws: self.draws,
            bar: Mutex::new(None),
        }
    }

    /// Shows on a terminal that something goes on, until the result is dropped.
    pub(super) fn spinner(&self, what: &str) -> Spinner {
        if !self.draws {
            return Spinner(None);
        }
        let bar = ProgressBar::new_spinner().with_message(what.to_owned());
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} {msg} {elapsed}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(Some(bar))
    }
}

/// A spinner; goes away when dropped.
pub(super) struct Spinner(Option<ProgressBar>);

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Progress bars, or one line for each step where nothing can be drawn.
pub(super) struct Bars {
    draws: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Bars {
    fn replace(&self, next: Option<ProgressBar>) {
        let mut bar = self
            .bar
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(last) = std::mem::replace(&mut *bar, next) {
            last.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn step(&self, what: &str, bytes_total: Option<u64>) {
        if !self.draws {
            let size = bytes_total
                .map(|bytes| format!(" ({})", size(bytes)))
                .unwrap_or_default();
            write_error(&format!("{what}{size} ...\n"));
            return;
        }
        let bar = match bytes_total {
            Some(total) => {
                let bar = ProgressBar::new(total);
                bar.set_style(style(
                    "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
                ));
                bar
            }
            None => {
                let bar = ProgressBar::new_spinner();
                bar.set_style(style("{spinner} {msg} {elapsed}"));
                bar.enable_steady_tick(Duration::from_millis(100));
                bar
            }
        };
        self.replace(Some(bar.with_message(what.to_owned())));
    }

    fn position(&self, bytes: u64) {
        let bar = self
            .bar
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = &*bar {
            bar.set_position(bytes);
        }
    }

    fn finish(&self) {
        self.replace(None);
    }
}

/// Bytes as people read them.
pub(super) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Text from outside without control characters, which could repaint the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect()
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn styled(wanted: bool, code: &str, text: &str) -> String {
    if wanted {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Nobody can be told when standard error is gone.
fn write_error(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
