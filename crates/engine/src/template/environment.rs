//! Jinja as chat templates expect it: Python's methods, transformers' `tojson`, `raise_exception`, `strftime_now`.

use std::borrow::Cow;

use holdfast_protocol::UnixMillis;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::error::EngineError;

/// Bounds both the time of a rendering and, at about 64 bytes per unit, the memory a template may allocate. A thousand
/// messages under an elaborate template take a tenth of it.
const FUEL: u64 = 4_000_000;
const RECURSION_MAX: usize = 100;
const NAME: &str = "chat";

/// One template, ready to render.
pub(super) struct Jinja {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

impl Jinja {
    pub(super) fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self, EngineError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| failed(&error))?);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", tojson);
        environment
            .add_template_owned(NAME, normalised(source))
            .map_err(|error| failed(&error))?;
        Ok(Jinja {
            environment,
            bos_token: bos_token.to_owned(),
            eos_token: eos_token.to_owned(),
        })
    }

    /// Renders with the variables transformers passes. `messages` and `tools` are in Hugging Face's form.
    pub(super) fn render(
        &self,
        messages: Value,
        tools: Option<&Value>,
        now: UnixMillis,
        add_generation_prompt: bool,
    ) -> Result<String, EngineError> {
        let strftime_now = Value::from_function(move |format: Cow<'_, str>| strftime(now, &format));
        let variables = minijinja::context! {
            messages,
            tools => tools.cloned().unwrap_or(Value::from(())),
            documents => (),
            add_generation_prompt,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            strftime_now,
        };
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| failed(&error))?;
        template.render(variables).map_err(|error| failed(&error))
    }
}

/// Only the kind and the template's own words: other parts of the error may quote messages.
fn failed(error: &Error) -> EngineError {
    let words: String = error
        .detail()
        .unwrap_or_default()
        .chars()
        .take(300)
        .collect();
    let line = error
        .line()
        .map(|line| format!(" (line {line} of the template)"))
        .unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidOperation if !words.is_empty() => EngineError::Template(words),
        kind if words.is_empty() => EngineError::Template(format!("{kind}{line}")),
        kind => EngineError::Template(format!("{kind}: {words}{line}")),
    }
}

fn raise_exception(message: Cow<'_, str>) -> Result<Value, Error> {
    Err(Error::new(
        ErrorKind::InvalidOperation,
        message.into_owned(),
    ))
}

/// Line breaks become `\n`, as Jinja does to any source. `{% generation %}` marks the assistant's words for training
/// and means nothing for prompts; it becomes a condition that always holds, which keeps its whitespace control.
fn normalised(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut text = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = rest.find("{%") {
        let inside = start + 2;
        text.push_str(&rest[..inside]);
        rest = &rest[inside..];
        let word = rest.trim_start_matches(['-', '+']).trim_start();
        for (tag, replacement) in [("generation", "if true"), ("endgeneration", "endif")] {
            let Some(after) = word.strip_prefix(tag) else {
                continue;
            };
            if after
                .trim_start()
                .trim_start_matches(['-', '+'])
                .starts_with("%}")
            {
                text.push_str(&rest[..rest.len() - word.len()]);
                text.push_str(replacement);
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

/// Python's `json.dumps` with `ensure_ascii=False`, with which transformers replaces Jinja's own filter: that one
/// escapes for HTML.
fn tojson(state: &mut State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let cannot = |why: &str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {why}"));
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(cannot("ensure_ascii=True is not supported"));
    }
    if options.get::<Option<bool>>("sort_keys")? == Some(true) {
        return Err(cannot("sort_keys=True is not supported"));
    }
    let indent = options.get::<Option<usize>>("indent")?;
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    options.assert_all_used()?;

    let mut bytes = Vec::new();
    let written = match (indent, separators.as_deref()) {
        (Some(width), _) => {
            let indent = vec![b' '; width.min(16)];
            value.serialize(&mut Serializer::with_formatter(
                &mut bytes,
                PrettyFormatter::with_indent(&indent),
            ))
        }
        (None, None) => value.serialize(&mut Serializer::with_formatter(
            &mut bytes,
            Separated {
                item: ", ",
                key: ": ",
            },
        )),
        (None, Some([item, key])) => value.serialize(&mut Serializer::with_formatter(
            &mut bytes,
            Separated { item, key },
        )),
        (None, Some(_)) => return Err(cannot("separators must be two strings")),
    };
    written.map_err(|_| cannot("the value has no JSON form"))?;
    state.consume_fuel(bytes.len() as u64 / 64)?;
    String::from_utf8(bytes).map_err(|_| cannot("the value has no JSON form"))
}

struct Separated<'a> {
    item: &'a str,
    key: &'a str,
}

impl Formatter for Separated<'_> {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(self.item.as_bytes())
        }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(self.item.as_bytes())
        }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// Python's `strftime` in UTC for the directives that chat templates use; an unknown one stays as it is.
pub(super) fn strftime(now: UnixMillis, format: &str) -> String {
    let seconds = now.div_euclid(1000);
    let days = seconds.div_euclid(86_400);
    let second_of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    );
    let (year, month, day) = civil_date(days);
    let month_name = usize::try_from(month - 1)
        .ok()
        .and_then(|month| MONTHS.get(month))
        .copied()
        .unwrap_or_default();
    let day_name = usize::try_from(days.rem_euclid(7))
        .ok()
        .and_then(|day| DAYS.get(day))
        .copied()
        .unwrap_or_default();

    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut directive = characters.next();
        let unpadded = directive == Some('-');
        if unpadded {
            directive = characters.next();
        }
        let number = |value: i64| {
            if unpadded {
                value.to_string()
            } else {
                format!("{value:02}")
            }
        };
        match directive {
            Some('Y') => text.push_str(&format!("{year:04}")),
            Some('y') => text.push_str(&number(year.rem_euclid(100))),
            Some('m') => text.push_str(&number(month)),
            Some('d') => text.push_str(&number(day)),
            Some('e') => text.push_str(&format!("{day:2}")),
            Some('B') => text.push_str(month_name),
            Some('b') => text.push_str(month_name.get(..3).unwrap_or_default()),
            Some('A') => text.push_str(day_name),
            Some('a') => text.push_str(day_name.get(..3).unwrap_or_default()),
            Some('H') => text.push_str(&number(hour)),
            Some('I') => text.push_str(&number((hour + 11) % 12 + 1)),
            Some('M') => text.push_str(&number(minute)),
            Some('S') => text.push_str(&number(second)),
            Some('p') => text.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('F') => text.push_str(&format!("{year:04}-{month:02}-{day:02}")),
            Some('T') => text.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('Z') => text.push_str("UTC"),
            Some('%') => text.push('%'),
            other => {
                text.push_str(if unpadded { "%-" } else { "%" });
                text.extend(other);
            }
        }
    }
    text
}

/// Year, month and day of a day number counted from 1970-01-01, in the proleptic Gregorian calendar. Years are counted
/// from March, so that a leap day is the last of its year.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
