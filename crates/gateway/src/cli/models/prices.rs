//! `holdfast models prices`: what the catalog says of models, as the gateway would charge them.

use std::sync::Arc;

use clap::Args;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::price::{Price, Rates};
use holdfast_protocol::provider;
use jiff::civil::Date;
use serde_json::{Map, Value, json};

use crate::catalog::{Catalog, Row, day_of};
use crate::cli::output::plain;
use crate::cli::{Failure, Session, seconds};
use crate::serve::now;

#[derive(Debug, Args)]
pub(in crate::cli) struct PricesArguments {
    /// Only those of this provider
    #[arg(long)]
    provider: Option<String>,
    /// Only those for this model, by the provider's name of it
    #[arg(long)]
    model: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(session: &Session, arguments: &PricesArguments) -> Result<(), Failure> {
    let catalog = configured_catalog(session)?;
    if let Some(name) = &arguments.provider
        && provider::by_name(name).is_none()
    {
        let known: Vec<&str> = provider::ALL.iter().map(|known| known.name).collect();
        return Err(
            Failure::usage(format!("there is no provider `{}`", plain(name)))
                .help(format!("the providers are {}", known.join(", "))),
        );
    }
    let listed = list(
        &catalog,
        arguments.provider.as_deref(),
        arguments.model.as_deref(),
        now(),
    );
    if arguments.json {
        let rows = listed.iter().map(Listed::json).collect();
        session.output.json(&Value::Array(rows));
        return Ok(());
    }
    session.output.table(
        &[
            "PROVIDER", "MODEL", "CURRENCY", "INPUT", "READ", "WRITE", "OUTPUT", "STORAGE",
            "IN FORCE",
        ],
        listed.iter().flat_map(Listed::cells).collect(),
        "no prices are known: a file of your own can name them, see docs/prices.md",
    );
    if !listed.is_empty() {
        let as_of = catalog
            .updated()
            .map(|day| format!(", as of {day}"))
            .unwrap_or_default();
        session.output.aside(&format!(
            "per million tokens, storage also per hour{as_of}; `-` for WRITE: what INPUT costs"
        ));
    }
    Ok(())
}

/// The catalog that `serve` would use.
fn configured_catalog(session: &Session) -> Result<Arc<Catalog>, Failure> {
    session.config().map(|config| config.catalog)
}

/// A row as one provider's.
struct Listed<'a> {
    provider: &'a str,
    row: &'a Row,
    state: State,
}

/// Whether a row's price is the one that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InForce,
    Planned,
    Ended,
    /// A row of a file speaks for the same model.
    Overridden,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::InForce => "in_force",
            State::Planned => "planned",
            State::Ended => "ended",
            State::Overridden => "overridden",
        }
    }
}

fn list<'a>(
    catalog: &'a Catalog,
    provider: Option<&str>,
    model: Option<&str>,
    now: UnixMillis,
) -> Vec<Listed<'a>> {
    let mut listed: Vec<Listed<'a>> = catalog
        .rows()
        .iter()
        .flat_map(|row| row.providers.iter().map(move |provider| (provider, row)))
        .filter(|(of, _)| provider.is_none_or(|provider| provider == of.as_str()))
        .filter(|(of, row)| {
            model.is_none_or(|model| {
                catalog
                    .find_all(of, model)
                    .into_iter()
                    .any(|found| std::ptr::eq(found, *row))
            })
        })
        .map(|(provider, row)| Listed {
            provider,
            row,
            state: state(catalog, provider, model.unwrap_or(&row.model), row, now),
        })
        .collect();
    // Stable: what belongs to one provider stays in the order of precedence.
    listed.sort_by_key(|listed| {
        provider::ALL
            .iter()
            .position(|known| known.name == listed.provider)
    });
    listed
}

fn state(catalog: &Catalog, provider: &str, model: &str, row: &Row, now: UnixMillis) -> State {
    let counts = catalog
        .find(provider, model, now)
        .is_some_and(|found| std::ptr::eq(found, row));
    let today = day_of(now).unwrap_or(Date::MAX);
    if counts {
        State::InForce
    } else if row.from.is_some_and(|from| today < from) {
        State::Planned
    } else if row.until.is_some_and(|until| until < today) {
        State::Ended
    } else {
        State::Overridden
    }
}

impl Listed<'_> {
    /// One line, and one more for each tier.
    fn cells(&self) -> Vec<Vec<String>> {
        let Row { model, price, .. } = self.row;
        let first = vec![
            self.provider.to_owned(),
            model.clone(),
            price.currency.to_string(),
            price.rates.input.to_string(),
            read(&price.rates),
            write(&price.rates),
            price.rates.output.to_string(),
            storage(price),
            self.days(),
        ];
        let tiers = price.tiers.iter().map(|tier| {
            vec![
                String::new(),
                format!("  above {} tokens", tier.above_tokens),
                String::new(),
                tier.rates.input.to_string(),
                read(&tier.rates),
                write(&tier.rates),
                tier.rates.output.to_string(),
                String::new(),
                String::new(),
            ]
        });
        std::iter::once(first).chain(tiers).collect()
    }

    fn days(&self) -> String {
        let until = self.row.until.map(|until| format!("until {until}"));
        match (self.state, self.row.from) {
            (State::InForce, _) => until.unwrap_or_else(|| "now".into()),
            (State::Planned, Some(from)) => format!("from {from}"),
            (State::Ended, _) => until.unwrap_or_default(),
            (State::Overridden | State::Planned, _) => "overridden".into(),
        }
    }

    /// Amounts are strings, so that no reader makes binary fractions of them by accident.
    fn json(&self) -> Value {
        let row = self.row;
        let mut shown = json!({
            "provider": self.provider,
            "model": row.model,
            "also": row.also,
            "prefixes": row.prefixes,
            "currency": row.price.currency.as_str(),
        });
        let tiers: Vec<Value> = row
            .price
            .tiers
            .iter()
            .map(|tier| {
                let mut shown = json!({"above_tokens": tier.above_tokens});
                insert_rates(&mut shown, &tier.rates);
                shown
            })
            .collect();
        insert_rates(&mut shown, &row.price.rates);
        let storage = row.price.storage;
        shown["tiers"] = Value::Array(tiers);
        shown["storage_per_mtok_hour"] =
            json!(storage.map(|storage| storage.per_mtok_hour.to_string()));
        shown["storage_whole_hours"] = json!(storage.is_some_and(|storage| storage.is_whole_hours));
        shown["min_cache_tokens"] = json!(row.min_cache_tokens);
        shown["context_tokens"] = json!(row.context_tokens);
        shown["max_output_tokens"] = json!(row.max_output_tokens);
        shown["from"] = json!(row.from.map(|day| day.to_string()));
        shown["until"] = json!(row.until.map(|day| day.to_string()));
        shown["state"] = self.state.word().into();
        shown["builtin"] = row.is_builtin.into();
        shown
    }
}

fn insert_rates(shown: &mut Value, rates: &Rates) {
    shown["input"] = rates.input.to_string().into();
    shown["output"] = rates.output.to_string().into();
    shown["cached_read"] = rates.cached_read.to_string().into();
    shown["cached_read_explicit"] = json!(rates.cached_read_explicit.map(|rate| rate.to_string()));
    let writes: Map<String, Value> = rates
        .writes
        .iter()
        .map(|(lifetime, rate)| (lifetime.to_string(), rate.to_string().into()))
        .collect();
    shown["writes"] = Value::Object(writes);
}

fn read(rates: &Rates) -> String {
    match rates.cached_read_explicit {
        Some(explicit) => format!("{} ({explicit} by marker)", rates.cached_read),
        None => rates.cached_read.to_string(),
    }
}

fn write(rates: &Rates) -> String {
    if rates.writes.is_empty() {
        return "-".into();
    }
    let writes: Vec<String> = rates
        .writes
        .iter()
        .map(|(lifetime, rate)| format!("{} {rate}", seconds::show(u64::from(*lifetime))))
        .collect();
    writes.join(", ")
}

fn storage(price: &Price) -> String {
    price
        .storage
        .map_or_else(|| "-".into(), |storage| storage.per_mtok_hour.to_string())
}

#[cfg(test)]
mod tests;
