//! One catalog file: from text to rows, with every problem at its place.
//!
//! Read by hand and not by serde, because serde hands TOML's floats over as binary fractions; here their digits are
//! read as they are written.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Range, RangeInclusive};

use holdfast_protocol::price::{Currency, Decimal, Price, Rates, StoragePrice, Tier};
use holdfast_protocol::provider;
use jiff::civil::Date;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Row;
use crate::config::{ConfigErrors, Problem};

/// The form that this version reads.
const SCHEMA: u32 = 1;
const ROWS_MAX: usize = 20_000;
/// Names in one list, tiers, lifetimes.
const ITEMS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 256;
/// Per million tokens. More is a slip of the unit.
const RATE_MAX: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);
/// Digits after the point. With more, the product with a number of tokens could not be exact.
const RATE_DIGITS_MAX: u32 = 10;
const TOKENS_MAX: u32 = 1_000_000_000;
const LIFETIME_SECONDS_MAX: u32 = 31_622_400;

/// A file as far as it could be read.
#[derive(Debug)]
pub(super) struct CatalogFile {
    name: String,
    text: String,
    pub(super) rows: Vec<LocatedRow>,
    pub(super) updated: Option<Date>,
    pub(super) problems: Vec<Problem>,
}

/// A row and where it begins in its file.
#[derive(Debug)]
pub(super) struct LocatedRow {
    pub(super) row: Row,
    span: Range<usize>,
}

/// Index of a file and of a row in it.
type RowPlace = (usize, usize);

impl CatalogFile {
    pub(super) fn unreadable(name: &str, problem: Problem) -> Self {
        CatalogFile {
            name: name.to_owned(),
            text: String::new(),
            rows: Vec::new(),
            updated: None,
            problems: vec![problem],
        }
    }

    pub(super) fn parse(name: &str, text: String, is_builtin: bool) -> Self {
        let mut problems = Vec::new();
        let (rows, updated) = document(&text, is_builtin, &mut problems);
        CatalogFile {
            name: name.to_owned(),
            rows,
            updated,
            problems,
            text,
        }
    }

    pub(super) fn take_errors(&mut self) -> ConfigErrors {
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        ConfigErrors {
            file: self.name.clone(),
            text: std::mem::take(&mut self.text),
            problems,
            others: Vec::new(),
        }
    }

    fn line_of(&self, span: &Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or_default();
        before.matches('\n').count() + 1
    }
}

/// Reports rows that have a price for the same name and day, within a file and between files.
pub(super) fn overlaps(files: &mut [CatalogFile]) {
    let mut taken: HashMap<(&str, bool, &str), Vec<RowPlace>> = HashMap::new();
    for (file_index, file) in files.iter().enumerate() {
        for (row_index, LocatedRow { row, .. }) in file.rows.iter().enumerate() {
            let names = row.names().map(|name| (false, name));
            let prefixes = row.prefixes.iter().map(|prefix| (true, prefix.as_str()));
            for (is_prefix, name) in names.chain(prefixes) {
                for provider in &row.providers {
                    taken
                        .entry((provider, is_prefix, name))
                        .or_default()
                        .push((file_index, row_index));
                }
            }
        }
    }
    let mut found: BTreeMap<RowPlace, Problem> = BTreeMap::new();
    for ((provider, is_prefix, name), mut places) in taken {
        places.sort_by_key(|&(file, row)| files[file].rows[row].row.from);
        // The place whose last day is the latest so far.
        let mut last: Option<RowPlace> = None;
        for place in places {
            let located = |(file, row): RowPlace| &files[file].rows[row];
            let until = |place| located(place).row.until.unwrap_or(Date::MAX);
            if let Some(before) = last
                && located(place).row.from.unwrap_or(Date::MIN) <= until(before)
            {
                let (first, second) = (before.min(place), before.max(place));
                let what = if is_prefix { "the prefix" } else { "the model" };
                found.entry(second).or_insert_with(|| {
                    clash(
                        files,
                        first,
                        second,
                        &format!("{what} `{name}` of {provider}"),
                    )
                });
            }
            if last.is_none_or(|before| until(before) < until(place)) {
                last = Some(place);
            }
        }
    }
    for ((file, _), problem) in found {
        files[file].problems.push(problem);
    }
}

fn clash(files: &[CatalogFile], first: RowPlace, second: RowPlace, what: &str) -> Problem {
    let span = Some(files[second.0].rows[second.1].span.clone());
    if first == second {
        return Problem {
            span,
            message: format!("{what} is named twice in this row"),
            help: None,
        };
    }
    let file = &files[first.0];
    let line = file.line_of(&file.rows[first.1].span);
    Problem {
        span,
        message: format!("{what} has a price for the same days already"),
        help: Some(format!(
            "see {}:{line}; give both `from` and `until` so that their days do not overlap, or remove one",
            file.name
        )),
    }
}

fn document(
    text: &str,
    is_builtin: bool,
    problems: &mut Vec<Problem>,
) -> (Vec<LocatedRow>, Option<Date>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        problems.extend(errors.into_iter().map(|error| Problem {
            span: error.span(),
            message: error.message().trim().to_owned(),
            help: None,
        }));
        return (Vec::new(), None);
    }
    let mut section = Section::new("a catalog file", 0..0, document.into_inner(), problems);
    let schema = section.take("schema");
    let is_read = schema
        .as_ref()
        .and_then(|schema| schema.get_ref().as_integer())
        .is_some_and(|schema| schema.radix() == 10 && schema.as_str().parse() == Ok(SCHEMA));
    if !is_read {
        let span = schema.map(|schema| schema.span());
        section.problem(
            span,
            format!("this version reads catalog files of schema {SCHEMA}"),
            Some(format!("write `schema = {SCHEMA}` at the top")),
        );
    }
    let updated = section.date("updated");
    let tables = section.tables("models", ROWS_MAX);
    section.finish();
    let rows = tables
        .into_iter()
        .filter_map(|(span, table)| {
            let row = row(
                Section::new("[[models]]", span.clone(), table, problems),
                is_builtin,
            )?;
            Some(LocatedRow { row, span })
        })
        .collect();
    (rows, updated)
}

/// `None` where something is wrong that was reported.
fn row(mut section: Section<'_, '_>, is_builtin: bool) -> Option<Row> {
    let problems_before = section.problems.len();
    let providers = section.providers();
    let model = section.names("model");
    if model.len() != 1 {
        let span = Some(section.span.clone());
        section.problem(
            span,
            "`model` in [[models]] is missing or not one name",
            Some("write `model = \"...\"`, and further names into `also`".into()),
        );
    }
    let also = section.names("also");
    let prefixes = section.names("prefixes");
    let currency = section.currency();
    let rates = section.rates();
    let tiers = section.tiers(&rates);
    let storage = section.rate("storage_per_mtok_hour");
    let is_whole_hours = section.flag("storage_whole_hours");
    let from = section.date("from");
    let until = section.date("until");
    if let (Some(from), Some(until)) = (from, until)
        && until < from
    {
        let span = Some(section.span.clone());
        section.problem(span, "`until` in [[models]] is before `from`", None);
    }
    let min_cache_tokens = section.tokens("min_cache_tokens");
    let context_tokens = section.tokens("context_tokens");
    let max_output_tokens = section.tokens("max_output_tokens");
    let problems = section.finish();
    if problems > problems_before {
        return None;
    }
    Some(Row {
        providers,
        model: model.into_iter().next()?,
        also,
        prefixes,
        from,
        until,
        price: Price {
            currency,
            rates,
            tiers,
            storage: storage.map(|per_mtok_hour| StoragePrice {
                per_mtok_hour,
                is_whole_hours,
            }),
        },
        min_cache_tokens,
        context_tokens,
        max_output_tokens,
        is_builtin,
    })
}

/// A table whose keys are taken out one by one; what is left at the end is unknown.
struct Section<'t, 'p> {
    /// As in "`input` in NAME".
    name: &'static str,
    span: Range<usize>,
    table: DeTable<'t>,
    known: Vec<&'static str>,
    problems: &'p mut Vec<Problem>,
}

impl<'t, 'p> Section<'t, 'p> {
    fn new(
        name: &'static str,
        span: Range<usize>,
        table: DeTable<'t>,
        problems: &'p mut Vec<Problem>,
    ) -> Self {
        Section {
            name,
            span,
            table,
            known: Vec::new(),
            problems,
        }
    }

    fn problem(
        &mut self,
        span: Option<Range<usize>>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.problems.push(Problem {
            span,
            message: message.into(),
            help,
        });
    }

    fn wrong(&mut self, key: &str, value: &Spanned<DeValue<'_>>, what: &str, help: &str) {
        let message = format!("`{key}` in {}: {what}", self.name);
        self.problem(Some(value.span()), message, Some(help.to_owned()));
    }

    fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue<'_>>, help: &str) {
        let kind = value.get_ref().type_str();
        let article = if kind.starts_with(['a', 'i']) {
            "an"
        } else {
            "a"
        };
        let what = format!("this is {article} {kind}");
        self.wrong(key, value, &what, help);
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Reports the keys that nobody asked for, and says how many problems there are now.
    fn finish(self) -> usize {
        let known: Vec<String> = self.known.iter().map(|key| format!("`{key}`")).collect();
        for (key, _) in &self.table {
            self.problems.push(Problem {
                span: Some(key.span()),
                message: format!("unknown key `{}` in {}", key.get_ref(), self.name),
                help: Some(format!("{} has {}", self.name, known.join(", "))),
            });
        }
        self.problems.len()
    }

    fn rates(&mut self) -> Rates {
        let mut required = |key| {
            let is_there = self.table.contains_key(key);
            let rate = self.rate(key);
            if !is_there {
                let message = format!("`{key}` is missing in {}", self.name);
                self.problem(Some(self.span.clone()), message, None);
            }
            rate.unwrap_or_default()
        };
        let (input, output) = (required("input"), required("output"));
        Rates {
            input,
            output,
            cached_read: self.rate("cached_read").unwrap_or(input),
            cached_read_explicit: self.rate("cached_read_explicit"),
            writes: self.writes(),
        }
    }

    /// A price per million tokens, exactly as written.
    fn rate(&mut self, key: &'static str) -> Option<Decimal> {
        let value = self.take(key)?;
        self.rate_in(key, &value)
    }

    fn rate_in(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Decimal> {
        let help = "write a price per million tokens, such as \"2.50\"";
        let text = match value.get_ref() {
            DeValue::String(text) => text.as_ref(),
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            _ => {
                self.wrong_type(key, value, help);
                return None;
            }
        };
        let Some(rate) = exact(text) else {
            self.wrong(key, value, "this is not a decimal number", help);
            return None;
        };
        if rate.is_sign_negative() || rate > RATE_MAX || rate.scale() > RATE_DIGITS_MAX {
            let what = format!(
                "a price is between 0 and {RATE_MAX} and has at most {RATE_DIGITS_MAX} digits after the point"
            );
            self.wrong(key, value, &what, help);
            return None;
        }
        Some(rate)
    }

    fn writes(&mut self) -> BTreeMap<u32, Decimal> {
        let help = "write a price for each lifetime, such as { 5m = \"2.50\", 1h = \"4\" }";
        let mut writes = BTreeMap::new();
        let Some(value) = self.take("writes") else {
            return writes;
        };
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type("writes", &value, help);
            return writes;
        };
        if table.len() > ITEMS_MAX {
            let what = format!("there are more than {ITEMS_MAX}");
            self.wrong("writes", &value, &what, help);
            return writes;
        }
        for (key, value) in table {
            let Some(seconds) = lifetime(key.get_ref()) else {
                let message = format!("`{}` is not a lifetime", key.get_ref());
                let help = "write seconds (300), minutes (5m) or hours (1h)";
                self.problem(Some(key.span()), message, Some(help.into()));
                continue;
            };
            let Some(rate) = self.rate_in("writes", value) else {
                continue;
            };
            if writes.insert(seconds, rate).is_some() {
                let message = format!("the lifetime of {seconds} seconds is there twice");
                self.problem(Some(key.span()), message, None);
            }
        }
        writes
    }

    fn tiers(&mut self, base: &Rates) -> Vec<Tier> {
        let mut tiers: Vec<Tier> = Vec::new();
        for (span, table) in self.tables("tiers", ITEMS_MAX) {
            let mut section = Section::new("a tier", span.clone(), table, self.problems);
            let problems_before = section.problems.len();
            let has_cached_read = section.table.contains_key("cached_read");
            let above_tokens = section.tokens("above_tokens");
            let rates = section.rates();
            if section.finish() > problems_before {
                continue;
            }
            let Some(above_tokens) = above_tokens else {
                self.problem(Some(span), "`above_tokens` is missing in a tier", None);
                continue;
            };
            // A rate left out would silently be that of input, while the rows above it say otherwise.
            let is_whole = (has_cached_read || base.cached_read == base.input)
                && rates.cached_read_explicit.is_some() == base.cached_read_explicit.is_some()
                && rates.writes.keys().eq(base.writes.keys());
            if !is_whole {
                self.problem(
                    Some(span),
                    "a tier has the same rates as its row, because all of them change",
                    Some("give `cached_read`, `cached_read_explicit` and `writes` where the row has them".into()),
                );
                continue;
            }
            let above_tokens = u64::from(above_tokens);
            if tiers
                .last()
                .is_some_and(|last| last.above_tokens >= above_tokens)
            {
                self.problem(
                    Some(span),
                    "tiers are in ascending order of `above_tokens`",
                    None,
                );
                continue;
            }
            tiers.push(Tier {
                above_tokens,
                rates,
            });
        }
        tiers
    }

    fn currency(&mut self) -> Currency {
        let Some(value) = self.take("currency") else {
            return Currency::USD;
        };
        let currency = value.get_ref().as_str().map(str::parse);
        if let Some(Ok(currency)) = currency {
            return currency;
        }
        self.wrong(
            "currency",
            &value,
            "this is not a currency",
            "write three capital letters, such as \"USD\" or \"CNY\"",
        );
        Currency::USD
    }

    fn providers(&mut self) -> Vec<String> {
        let span = self.span.clone();
        let value_span = self.table.get("provider").map(Spanned::span);
        let is_missing = value_span.is_none();
        let providers = self.names("provider");
        if is_missing {
            self.problem(Some(span), "`provider` is missing in [[models]]", None);
        }
        for name in &providers {
            if provider::by_name(name).is_none() {
                let known: Vec<&str> = provider::ALL.iter().map(|known| known.name).collect();
                self.problem(
                    value_span.clone(),
                    format!("there is no provider `{name}`"),
                    Some(format!("the providers are {}", known.join(", "))),
                );
            }
        }
        providers
    }

    /// A name or a list of names.
    fn names(&mut self, key: &'static str) -> Vec<String> {
        let help = "write a name such as \"a\", or a list such as [\"a\", \"b\"]";
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let items: Vec<&DeValue<'_>> = match value.get_ref() {
            DeValue::Array(items) => items.iter().map(Spanned::get_ref).collect(),
            one => vec![one],
        };
        let names: Option<Vec<String>> = items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect();
        let Some(names) = names else {
            self.wrong(key, &value, "these are not all strings", help);
            return Vec::new();
        };
        let is_sound = |name: &String| {
            (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        if names.len() > ITEMS_MAX || !names.iter().all(is_sound) {
            let what =
                format!("there are at most {ITEMS_MAX} names of 1 to {NAME_BYTES_MAX} bytes");
            self.wrong(key, &value, &what, help);
            return Vec::new();
        }
        names
    }

    fn tokens(&mut self, key: &'static str) -> Option<u32> {
        let range: RangeInclusive<u32> = 0..=TOKENS_MAX;
        let help = format!("write a whole number of tokens up to {TOKENS_MAX}");
        let value = self.take(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, &value, &help);
            return None;
        };
        let tokens = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let tokens = tokens.filter(|tokens| range.contains(tokens));
        if tokens.is_none() {
            self.wrong(key, &value, "this number is out of range", &help);
        }
        tokens
    }

    fn flag(&mut self, key: &'static str) -> bool {
        let Some(value) = self.take(key) else {
            return false;
        };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong_type(key, &value, "write true or false");
            false
        })
    }

    /// A day, as a string or as TOML's own.
    fn date(&mut self, key: &'static str) -> Option<Date> {
        let value = self.take(key)?;
        let date = match value.get_ref() {
            DeValue::String(text) => text.parse().ok(),
            DeValue::Datetime(time) if time.time.is_none() => time.date.and_then(|date| {
                let year = i16::try_from(date.year).ok()?;
                Date::new(
                    year,
                    i8::try_from(date.month).ok()?,
                    i8::try_from(date.day).ok()?,
                )
                .ok()
            }),
            _ => None,
        };
        if date.is_none() {
            self.wrong(
                key,
                &value,
                "this is not a day",
                "write a day such as 2026-12-31",
            );
        }
        date
    }

    fn tables(&mut self, key: &'static str, count_max: usize) -> Vec<(Range<usize>, DeTable<'t>)> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let span = value.span();
        let wrong = |what: String| Problem {
            span: Some(span),
            message: format!("`{key}` in {}: {what}", self.name),
            help: None,
        };
        let DeValue::Array(items) = value.into_inner() else {
            self.problems
                .push(wrong("this is not a list of tables".into()));
            return Vec::new();
        };
        if items.len() > count_max {
            self.problems
                .push(wrong(format!("there are more than {count_max}")));
            return Vec::new();
        }
        let mut tables = Vec::new();
        for item in items {
            let span = item.span();
            match item.into_inner() {
                DeValue::Table(table) => tables.push((span, table)),
                _ => self.problem(
                    Some(span),
                    format!("`{key}` has an item that is not a table"),
                    None,
                ),
            }
        }
        tables
    }
}

/// A number with all its digits, or nothing: never one that was rounded.
fn exact(text: &str) -> Option<Decimal> {
    let number = if text.contains(['e', 'E']) {
        Decimal::from_scientific(text)
    } else {
        Decimal::from_str_exact(text)
    };
    number.ok().map(|number| number.normalize())
}

/// `300`, `300s`, `5m` or `1h` in seconds.
fn lifetime(text: &str) -> Option<u32> {
    let (digits, unit_seconds) = match text.as_bytes().last()? {
        b's' => (text.strip_suffix('s')?, 1),
        b'm' => (text.strip_suffix('m')?, 60),
        b'h' => (text.strip_suffix('h')?, 3_600),
        _ => (text, 1),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits
        .parse::<u32>()
        .ok()?
        .checked_mul(unit_seconds)
        .filter(|seconds| (1..=LIFETIME_SECONDS_MAX).contains(seconds))
}
