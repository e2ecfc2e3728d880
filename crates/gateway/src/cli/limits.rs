//! Flags for the limits and budgets of keys and projects.

use clap::Args;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::Failure;
use super::output::plain;

#[derive(Debug, Args)]
pub(super) struct LimitArguments {
    /// Most requests that may begin within a minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u64>,
    /// Most tokens, of input and output together, within a minute
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u64>,
    /// Most requests that may run at the same time
    #[arg(long, value_name = "N")]
    concurrent_requests: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct ContextLimitArguments {
    /// Most living contexts
    #[arg(long, value_name = "N")]
    contexts: Option<u64>,
    /// Most tokens in living contexts
    #[arg(long, value_name = "N")]
    context_tokens: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct BudgetArguments {
    /// What may be spent, as PERIOD=AMOUNT with an optional currency, such as `monthly=100`, `daily=7.50USD` or
    /// `total=1000CNY`; can be given more than once, and replaces all budgets that were. `none` takes them away
    #[arg(long = "budget", value_name = "PERIOD=AMOUNT")]
    budgets: Vec<String>,
    /// Beyond this part of each budget answers carry a warning, percent [default: no warning]
    #[arg(long, value_name = "PERCENT", requires = "budgets", value_parser = clap::value_parser!(u8).range(1..=99))]
    warn_at: Option<u8>,
}

impl BudgetArguments {
    /// Adds what was given to a request as its field `budgets`.
    pub(super) fn add_to(&self, body: &mut Map<String, Value>) -> Result<(), Failure> {
        if self.budgets.is_empty() {
            return Ok(());
        }
        let mut budgets = Vec::new();
        for text in self.budgets.iter().filter(|text| *text != "none") {
            budgets.push(self.budget(text).ok_or_else(|| {
                Failure::usage(format!(
                    "`{}` is no budget: write daily, monthly or total, `=` and an amount, such as monthly=100 or \
                     monthly=100CNY",
                    plain(text)
                ))
            })?);
        }
        body.insert("budgets".to_owned(), Value::Array(budgets));
        Ok(())
    }

    fn budget(&self, text: &str) -> Option<Value> {
        let (period, amount) = text.split_once('=')?;
        let end = amount
            .find(|character: char| character.is_ascii_alphabetic())
            .unwrap_or(amount.len());
        let (amount, currency) = amount.split_at(end);
        let limit = Decimal::from_str_exact(amount.trim()).ok()?;
        let soft = self.warn_at.map(|percent| {
            (limit * Decimal::new(i64::from(percent), 2))
                .normalize()
                .to_string()
        });
        let currency = if currency.is_empty() { "USD" } else { currency };
        Some(json!({
            "period": period,
            "currency": currency,
            "limit": limit.normalize().to_string(),
            "soft_limit": soft,
        }))
    }
}

/// What a list shows of budgets.
pub(super) fn shown_budgets(entry: &Value) -> String {
    let budgets = entry["budgets"].as_array().into_iter().flatten();
    let text = |budget: &Value, name: &str| budget[name].as_str().unwrap_or("-").to_owned();
    let all: Vec<String> = budgets
        .map(|budget| {
            let limit = match budget["limit"].is_null() {
                true => text(budget, "soft_limit"),
                false => text(budget, "limit"),
            };
            format!(
                "{}={limit}{}",
                text(budget, "period"),
                text(budget, "currency")
            )
        })
        .collect();
    all.join(" ")
}

impl LimitArguments {
    /// Adds what was given to a request as its field `limits`.
    pub(super) fn add_to(&self, body: &mut Map<String, Value>) {
        add(
            body,
            &[
                ("requests_per_minute", self.requests_per_minute),
                ("tokens_per_minute", self.tokens_per_minute),
                ("concurrent_requests", self.concurrent_requests),
            ],
        );
    }
}

impl ContextLimitArguments {
    /// Adds what was given to a request's field `limits`.
    pub(super) fn add_to(&self, body: &mut Map<String, Value>) {
        let given = [
            ("contexts", self.contexts),
            ("context_tokens", self.context_tokens),
        ];
        add(body, &given);
    }
}

fn add(body: &mut Map<String, Value>, given: &[(&str, Option<u64>)]) {
    for (name, limit) in given {
        if let Some(limit) = limit {
            let limits = body.entry("limits").or_insert_with(|| Map::new().into());
            limits[*name] = (*limit).into();
        }
    }
}

/// What a list shows of them: those that are set.
pub(super) fn shown(entry: &Value) -> String {
    let limits = entry["limits"].as_object().into_iter().flatten();
    let set: Vec<String> = limits
        .filter(|(_, limit)| !limit.is_null())
        .map(|(name, limit)| format!("{name}={limit}"))
        .collect();
    set.join(" ")
}
