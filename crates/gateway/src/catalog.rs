//! The catalog of models and prices: what a model costs at a provider, and its limits as far as they matter for caches.
//!
//! One is built in; files of the same form extend or replace it (`docs/prices.md`). Amounts that follow from it are
//! estimates: counted tokens times listed prices.
//!
//! Units: prices are per million tokens, in the row's currency; storage is per million tokens and hour; lifetimes are
//! seconds; dates are days in UTC, the first and the last one included.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use holdfast_protocol::UnixMillis;
use holdfast_protocol::price::Price;
use jiff::civil::Date;

use crate::config::{ConfigErrors, Problem};

use file::{CatalogFile, overlaps};

const BUILTIN: &str = include_str!("../catalog/models.toml");

/// How the built-in catalog is called in messages.
const BUILTIN_NAME: &str = "the built-in catalog";

/// Larger files are not price lists.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Models and prices, looked up by provider, name and time.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Those of files first, so that they win over the built-in ones.
    rows: Vec<Row>,
    by_provider: BTreeMap<String, ProviderIndex>,
    updated: Option<Date>,
}

/// What is known of one model at one provider or several that charge the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Providers by their names in the configuration; never empty.
    pub providers: Vec<String>,
    /// The provider's name of the model.
    pub model: String,
    /// More names that mean exactly the same.
    pub also: Vec<String>,
    /// Beginnings of names that are taken for this model, too (dated snapshots).
    pub prefixes: Vec<String>,
    /// The first day of the price; `None`: since ever.
    pub from: Option<Date>,
    /// Its last day; `None`: until further notice.
    pub until: Option<Date>,
    /// What it costs.
    pub price: Price,
    /// Smallest prefix that the provider caches, tokens.
    pub min_cache_tokens: Option<u32>,
    /// Longest prompt, tokens.
    pub context_tokens: Option<u32>,
    /// Longest answer, tokens.
    pub max_output_tokens: Option<u32>,
    /// Whether it comes with Holdfast.
    pub is_builtin: bool,
}

/// Rows by name, as indices into [`Catalog::rows`] in order of precedence.
#[derive(Debug, Clone, Default)]
struct ProviderIndex {
    exact: HashMap<String, Vec<usize>>,
    /// Longest first.
    prefixes: Vec<(String, usize)>,
}

/// Everything that is wrong with catalog files, each problem at its line and column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CatalogErrors {
    /// One for each file that something is wrong with; never empty.
    pub files: Vec<ConfigErrors>,
}

impl fmt::Display for CatalogErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, errors) in self.files.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{errors}")?;
        }
        Ok(())
    }
}

impl Catalog {
    /// The catalog that comes with Holdfast.
    pub fn builtin() -> Self {
        let file = CatalogFile::parse(BUILTIN_NAME, BUILTIN.to_owned(), true);
        debug_assert!(file.problems.is_empty(), "{:?}", file.problems);
        Catalog::of(vec![file])
    }

    /// The catalog of these files, extended by the built-in one unless they replace it. A row of a file wins over a
    /// built-in row for the same name on the days it is for.
    ///
    /// # Errors
    /// A file can't be read, is not of the catalog's form, or has two prices for the same name and day.
    pub fn load<P: AsRef<Path>>(paths: &[P], replace: bool) -> Result<Self, CatalogErrors> {
        let mut files: Vec<CatalogFile> = paths.iter().map(|path| read(path.as_ref())).collect();
        overlaps(&mut files);
        let wrong: Vec<ConfigErrors> = files
            .iter_mut()
            .filter(|file| !file.problems.is_empty())
            .map(CatalogFile::take_errors)
            .collect();
        if !wrong.is_empty() {
            return Err(CatalogErrors { files: wrong });
        }
        if !replace {
            files.push(CatalogFile::parse(BUILTIN_NAME, BUILTIN.to_owned(), true));
        }
        Ok(Catalog::of(files))
    }

    /// The row for a model at this time: one that names it exactly, else the one with the longest prefix of its name.
    /// `provider` is a name of the configuration, `model` the provider's name of the model.
    pub fn find(&self, provider: &str, model: &str, now: UnixMillis) -> Option<&Row> {
        let today = day_of(now)?;
        self.candidates(provider, model)
            .find(|row| row.is_in_force(today))
    }

    /// All rows that speak of a model, at whatever time, in order of precedence. Where any names it exactly, rows with
    /// a prefix of its name are left out.
    pub fn find_all(&self, provider: &str, model: &str) -> Vec<&Row> {
        let is_exact = |row: &&Row| row.names().any(|name| name == model);
        let candidates: Vec<&Row> = self.candidates(provider, model).collect();
        if candidates.iter().any(is_exact) {
            return candidates.into_iter().filter(is_exact).collect();
        }
        candidates
    }

    /// All rows: those of files in their order, then the built-in ones.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The latest day on which any of the files was brought up to date, where one says so.
    pub fn updated(&self) -> Option<Date> {
        self.updated
    }

    fn of(files: Vec<CatalogFile>) -> Self {
        let mut catalog = Catalog::default();
        for file in files {
            catalog.updated = catalog.updated.max(file.updated);
            catalog
                .rows
                .extend(file.rows.into_iter().map(|located| located.row));
        }
        for (index, row) in catalog.rows.iter().enumerate() {
            for provider in &row.providers {
                let names = catalog.by_provider.entry(provider.clone()).or_default();
                for name in row.names() {
                    names.exact.entry(name.to_owned()).or_default().push(index);
                }
                names
                    .prefixes
                    .extend(row.prefixes.iter().map(|prefix| (prefix.clone(), index)));
            }
        }
        for names in catalog.by_provider.values_mut() {
            // Stable, so that of equal prefixes a file's stays before the built-in one.
            names
                .prefixes
                .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        }
        catalog
    }

    /// In order of precedence.
    fn candidates<'s, 'm>(
        &'s self,
        provider: &str,
        model: &'m str,
    ) -> impl Iterator<Item = &'s Row> + use<'s, 'm> {
        let names = self.by_provider.get(provider);
        let exact = names
            .and_then(|names| names.exact.get(model))
            .into_iter()
            .flatten();
        let by_prefix = names
            .into_iter()
            .flat_map(|names| &names.prefixes)
            .filter(move |(prefix, _)| model.starts_with(prefix.as_str()))
            .map(|(_, index)| index);
        exact
            .chain(by_prefix)
            .filter_map(|index| self.rows.get(*index))
    }
}

impl Row {
    /// Whether the price holds on this day.
    pub fn is_in_force(&self, day: Date) -> bool {
        self.from.is_none_or(|from| from <= day) && self.until.is_none_or(|until| day <= until)
    }

    /// All exact names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.model.as_str()).chain(self.also.iter().map(String::as_str))
    }
}

/// The day in UTC; `None` for times that have no date.
pub(crate) fn day_of(now: UnixMillis) -> Option<Date> {
    let time = jiff::Timestamp::from_millisecond(now).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).date())
}

fn read(path: &Path) -> CatalogFile {
    let name = path.display().to_string();
    let text = std::fs::metadata(path)
        .map_err(|error| error.to_string())
        .and_then(|metadata| {
            if metadata.len() > FILE_BYTES_MAX {
                return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
            }
            std::fs::read_to_string(path).map_err(|error| error.to_string())
        });
    match text {
        Ok(text) => CatalogFile::parse(&name, text, false),
        Err(error) => {
            let problem = Problem {
                span: None,
                message: format!("the catalog file {name} can't be read: {error}"),
                help: None,
            };
            CatalogFile::unreadable(&name, problem)
        }
    }
}
