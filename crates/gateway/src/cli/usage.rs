//! `holdfast usage`: what was used and what it cost, for people, spreadsheets and data tools.

mod columns;
mod export;

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use reqwest::Method;
use serde_json::Value;

use crate::client::{Client, Patience};

use super::{Failure, Session, connection};
use columns::{Columns, Table};

/// Most that the server gives at once.
const PAGE: &str = "1000";

/// What to sum up, and in which form.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("form").args(["json", "csv", "parquet"])))]
pub(super) struct UsageArguments {
    /// Sum up by any of day, hour, project, key, model, upstream, context, with commas between them
    #[arg(long, value_name = "WORDS", default_value = "day,model")]
    by: String,
    /// Count requests from here on: `2026-11-01`, `2026-11-01T05:00:00Z` or unix seconds [default: thirty days ago]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Count requests that came before [default: now]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Another project than the key's, or `*` for all; needs a key with the scope `admin`
    #[arg(long)]
    project: Option<String>,
    /// Single requests, the latest first, instead of sums
    #[arg(long, conflicts_with = "by")]
    requests: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print CSV
    #[arg(long)]
    csv: bool,
    /// Write a Parquet file
    #[arg(long, value_name = "FILE")]
    parquet: Option<PathBuf>,
}

pub(super) async fn run(session: &Session, arguments: UsageArguments) -> Result<(), Failure> {
    let client = connection::client(session)?;
    let (path, columns): (&[&str], Columns) = match arguments.requests {
        true => (&["v1", "usage", "requests"], columns::of_requests()),
        false => (&["v1", "usage"], columns::of_groups(&arguments.by)),
    };
    let items = all(&client, path, &arguments)
        .await
        .map_err(|failure| failure.doing("read the ledger"))?;
    if arguments.json {
        session.output.json(&Value::Array(items));
        return Ok(());
    }
    let table = Table::new(columns, &items);
    if arguments.csv {
        let csv = export::csv(&table)
            .map_err(|error| Failure::new(format!("can't write CSV: {error}")))?;
        session.output.raw(&csv);
    } else if let Some(file) = &arguments.parquet {
        export::parquet(&table, file)
            .map_err(|error| Failure::new(format!("can't write {}: {error}", file.display())))?;
        let rows = table.rows.len();
        session
            .output
            .note(&format!("{rows} rows in {}", file.display()));
    } else {
        let (header, rows) = table.for_people();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        session.output.table(&header, rows, "nothing was used");
    }
    Ok(())
}

/// Everything from all pages.
async fn all(
    client: &Client,
    path: &[&str],
    arguments: &UsageArguments,
) -> Result<Vec<Value>, Failure> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut query = vec![("limit", PAGE)];
        if !arguments.requests {
            query.push(("group_by", arguments.by.as_str()));
        }
        let given = [
            ("from", &arguments.from),
            ("to", &arguments.to),
            ("project", &arguments.project),
        ];
        for (name, value) in given {
            query.extend(value.as_deref().map(|value| (name, value)));
        }
        if !cursor.is_empty() {
            query.push(("cursor", &cursor));
        }
        let mut page = client
            .call(Method::GET, path, &query, None, Patience::Short)
            .await?;
        if let Some(data) = page["data"].as_array_mut() {
            items.append(data);
        }
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return Ok(items),
        }
    }
}
