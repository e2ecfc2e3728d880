//! Answers of `/usage` as tables: one line for each group or request, and one more for each further currency of a group.

use serde_json::Value;

/// Groups' fields, beside what they are grouped by.
const GROUP_FIELDS: &[(&str, Type)] = &[
    ("requests", Type::Count),
    ("completed", Type::Count),
    ("cancelled", Type::Count),
    ("failed", Type::Count),
    ("refused", Type::Count),
    ("hits", Type::Count),
    ("rebuilds", Type::Count),
    ("misses", Type::Count),
    ("degraded", Type::Count),
];

/// What groups and requests have in common.
const TOKEN_FIELDS: &[(&str, Type)] = &[
    ("input_tokens", Type::Count),
    ("fresh_tokens", Type::Count),
    ("cached_tokens", Type::Count),
    ("cache_write_tokens", Type::Count),
    ("cache_writes/5m", Type::Count),
    ("cache_writes/30m", Type::Count),
    ("cache_writes/1h", Type::Count),
    ("cache_writes/12h", Type::Count),
    ("cache_writes/other", Type::Count),
    ("output_tokens", Type::Count),
    ("reasoning_tokens", Type::Count),
];

/// A group's, after its tokens; the first is also what tells one line for a currency from another.
const MONEY_FIELDS: &[(&str, Type)] = &[
    ("currency", Type::Text),
    ("cost", Type::Amount),
    ("storage_cost", Type::Amount),
    ("saved", Type::Amount),
];

/// A request's, before its tokens.
const REQUEST_FIELDS: &[(&str, Type)] = &[
    ("id", Type::Text),
    ("started_at", Type::Text),
    ("kind", Type::Text),
    ("project", Type::Text),
    ("key", Type::Text),
    ("surface", Type::Text),
    ("endpoint", Type::Text),
    ("model", Type::Text),
    ("requested_model", Type::Text),
    ("upstream", Type::Text),
    ("upstream_model", Type::Text),
    ("context_id", Type::Text),
    ("answer_id", Type::Text),
    ("request_id", Type::Text),
    ("first_token_ms", Type::Count),
    ("total_ms", Type::Count),
    ("stream", Type::Flag),
    ("outcome", Type::Text),
    ("error", Type::Text),
    ("finish_reason", Type::Text),
    ("usage_source", Type::Text),
    ("cost_source", Type::Text),
    ("cache_status", Type::Text),
    ("cache_reason", Type::Text),
];

/// A request's, after its tokens.
const REQUEST_MONEY_FIELDS: &[(&str, Type)] = &[
    ("currency", Type::Text),
    ("cost", Type::Amount),
    ("saved", Type::Amount),
];

/// What people look at first.
const FOR_PEOPLE: &[&str] = &[
    "started_at",
    "kind",
    "model",
    "upstream",
    "outcome",
    "requests",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "hit_rate",
    "cache_status",
    "currency",
    "cost",
    "saved",
];

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// Anything.
    Text,
    /// A whole number.
    Count,
    /// A decimal number with at most twelve digits behind the point.
    Amount,
    /// A number from 0 to 1.
    Share,
    /// True or false.
    Flag,
}

/// A column: where its value is in an item of the answer, and its type.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Names from the outside in, with slashes between them.
    path: String,
    pub(super) kind: Type,
}

impl Column {
    /// As files have it.
    pub(super) fn name(&self) -> String {
        self.path.replace('/', "_")
    }
}

/// The columns of a table.
#[derive(Debug)]
pub(super) struct Columns {
    all: Vec<Column>,
    /// How many of the first name a group.
    keys: usize,
}

/// For groups by these words; the server has the last word on what they may be.
pub(super) fn of_groups(by: &str) -> Columns {
    let keys = by.split(',').map(str::trim).filter(|word| !word.is_empty());
    let mut all: Vec<Column> = keys.map(|word| column((word, Type::Text))).collect();
    let keys = all.len();
    all.extend(GROUP_FIELDS.iter().copied().map(column));
    all.push(column(("hit_rate", Type::Share)));
    all.extend(TOKEN_FIELDS.iter().copied().map(column));
    all.push(column(("estimated", Type::Count)));
    all.extend(MONEY_FIELDS.iter().copied().map(column));
    Columns { all, keys }
}

/// For single requests.
pub(super) fn of_requests() -> Columns {
    let fields = [REQUEST_FIELDS, TOKEN_FIELDS, REQUEST_MONEY_FIELDS];
    Columns {
        all: fields.concat().into_iter().map(column).collect(),
        keys: 0,
    }
}

fn column((path, kind): (&str, Type)) -> Column {
    Column {
        path: path.to_owned(),
        kind,
    }
}

/// A table with a value, or null, for each column of each row.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Value>>,
    keys: usize,
}

impl Table {
    /// Of the items of an answer.
    pub(super) fn new(columns: Columns, items: &[Value]) -> Self {
        let Columns { all, keys } = columns;
        let mut rows = Vec::new();
        for item in items {
            let money = item["money"].as_array().map_or(&[][..], Vec::as_slice);
            let value = |column: &Column, money: Option<&Value>| {
                let path = format!("/{}", column.path);
                let of_item = item.pointer(&path);
                let of_money = || money.and_then(|money| money.pointer(&path));
                of_item.or_else(of_money).cloned().unwrap_or_default()
            };
            rows.push(
                all.iter()
                    .map(|column| value(column, money.first()))
                    .collect(),
            );
            // What is not an amount has been said already and must not be summed up twice.
            for further in money.iter().skip(1) {
                let cells = all.iter().enumerate().map(|(number, column)| {
                    let is_money = MONEY_FIELDS.iter().any(|(name, _)| *name == column.path);
                    if number < keys || is_money {
                        value(column, Some(further))
                    } else {
                        Value::Null
                    }
                });
                rows.push(cells.collect());
            }
        }
        Table {
            columns: all,
            rows,
            keys,
        }
    }

    /// What fits on a screen: header and cells.
    pub(super) fn for_people(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|number| {
                let name = self.columns[*number].path.as_str();
                *number < self.keys || FOR_PEOPLE.contains(&name)
            })
            .collect();
        let header = shown.iter().map(|number| {
            self.columns[*number]
                .name()
                .replace('_', " ")
                .to_uppercase()
        });
        let cells = |row: &Vec<Value>| shown.iter().map(|number| text(&row[*number])).collect();
        (header.collect(), self.rows.iter().map(cells).collect())
    }
}

/// A value as a text; nothing for null.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}
