//! `holdfast budget`: what may be spent, and what is spent of it.

use clap::Args;
use reqwest::Method;
use serde_json::Value;

use crate::client::Patience;

use super::key::text;
use super::{Failure, Session, connection};

/// Whose budgets.
#[derive(Debug, Args)]
pub(super) struct BudgetCommand {
    /// Another project than the key's; needs a key with the scope `admin`
    #[arg(long)]
    project: Option<String>,
    /// Another key, by its id; needs a key with the scope `admin`
    #[arg(long)]
    key: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(session: &Session, command: BudgetCommand) -> Result<(), Failure> {
    let client = connection::client(session)?;
    let mut query = Vec::new();
    query.extend(command.project.as_deref().map(|name| ("project", name)));
    query.extend(command.key.as_deref().map(|id| ("key", id)));
    let path = ["v1", "budgets"];
    let answer = client.call(Method::GET, &path, &query, None, Patience::Short);
    let mut answer = answer
        .await
        .map_err(|error| Failure::from(error).doing("show budgets"))?;
    let budgets = answer["data"].take();
    if command.json {
        session.output.json(&budgets);
        return Ok(());
    }
    let row = |budget: &Value| {
        let whose = match budget["key"].as_str() {
            Some(key) => key.to_owned(),
            None => format!("project {}", text(budget, "project")),
        };
        vec![
            whose,
            text(budget, "period"),
            text(budget, "currency"),
            text(budget, "spent"),
            text(budget, "reserved"),
            text(budget, "soft_limit"),
            text(budget, "limit"),
            text(budget, "resets_at"),
        ]
    };
    session.output.table(
        &[
            "WHOSE",
            "PERIOD",
            "CURRENCY",
            "SPENT",
            "RESERVED",
            "WARNS AT",
            "LIMIT",
            "BEGINS ANEW",
        ],
        budgets.as_array().into_iter().flatten().map(row).collect(),
        "no budgets",
    );
    Ok(())
}
