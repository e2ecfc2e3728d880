//! Reads tables into structs as far as they can be read: what can't be is reported at its place and left out.

use std::collections::BTreeSet;
use std::ops::Range;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::config::problems::{Problems, closest};

/// A list of tables, such as `[[engines]]`.
pub(super) fn tables<T: DeserializeOwned + Default + JsonSchema>(
    value: Spanned<DeValue<'_>>,
    name: &str,
    problems: &mut Problems,
) -> Vec<T> {
    let span = value.span();
    let DeValue::Array(items) = value.into_inner() else {
        problems.add_with_help(
            Some(span),
            format!("`{name}` is a list"),
            format!("write `[[{name}]]` with two brackets on either side"),
        );
        return Vec::new();
    };
    let section = format!("[[{name}]]");
    items
        .into_iter()
        .map(|item| table(item, &section, problems))
        .collect()
}

/// A table, such as `[server]`.
pub(super) fn table<T: DeserializeOwned + Default + JsonSchema>(
    value: Spanned<DeValue<'_>>,
    section: &str,
    problems: &mut Problems,
) -> T {
    let span = value.span();
    let mut table = match value.into_inner() {
        DeValue::Table(table) => table,
        DeValue::Array(_) => {
            problems.add_with_help(
                Some(span),
                format!("{section} may be there only once"),
                format!("write `{section}` with one bracket on either side"),
            );
            return T::default();
        }
        other => {
            problems.add(
                Some(span),
                format!("{section} is a table, not a {}", other.type_str()),
            );
            return T::default();
        }
    };
    let schema = schema_of::<T>();
    check_keys(&mut table, &span, Form::of(&schema), section, problems);
    // Each round takes out the key that can't be read, so that all of them are reported and the loop ends.
    loop {
        let whole = Spanned::new(span.clone(), DeValue::Table(table.clone()));
        let error = match T::deserialize(ValueDeserializer::from(whole)) {
            Ok(read) => return read,
            Err(error) => error,
        };
        let at = error.span().unwrap_or_else(|| span.clone());
        let Some(culprit) = remove_at(&mut table, &at) else {
            problems.add(Some(at), plain(error.message()));
            return T::default();
        };
        problems.add(
            Some(at),
            format!("`{culprit}` in {section}: {}", plain(error.message())),
        );
    }
}

/// Takes the innermost key out whose value stands there, and says which it was.
fn remove_at(table: &mut DeTable<'_>, at: &Range<usize>) -> Option<String> {
    for (_, value) in table.iter_mut() {
        let inner = match value.get_mut() {
            DeValue::Table(inner) => remove_at(inner, at),
            DeValue::Array(items) => items.iter_mut().find_map(|item| match item.get_mut() {
                DeValue::Table(inner) => remove_at(inner, at),
                _ => None,
            }),
            _ => None,
        };
        if inner.is_some() {
            return inner;
        }
    }
    let culprit = table
        .iter()
        .find(|(_, value)| value.span().start <= at.start && at.end <= value.span().end)
        .map(|(key, _)| key.clone())?;
    table.remove(&culprit);
    Some(culprit.get_ref().to_string())
}

/// Reports keys that are missing, and takes out those that nothing knows, in this table and all tables within.
fn check_keys(
    table: &mut DeTable<'_>,
    span: &Range<usize>,
    form: Form<'_>,
    section: &str,
    problems: &mut Problems,
) {
    let known = form.keys();
    if known.is_empty() {
        // A table of free names.
        return;
    }
    for key in form.required() {
        if !table.contains_key(key) {
            problems.add(
                Some(span.clone()),
                format!("`{key}` is missing in {section}"),
            );
        }
    }
    remove_unknown_keys(table, &known, section, problems);
    for (key, value) in table.iter_mut() {
        let Some(form) = form.at(key.get_ref()) else {
            continue;
        };
        let section = format!("`{}` of {section}", key.get_ref());
        let span = value.span();
        match value.get_mut() {
            DeValue::Table(inner) => check_keys(inner, &span, form, &section, problems),
            DeValue::Array(items) => {
                let Some(form) = form.items() else { continue };
                for item in items.iter_mut() {
                    let span = item.span();
                    if let DeValue::Table(inner) = item.get_mut() {
                        check_keys(inner, &span, form, &section, problems);
                    }
                }
            }
            _ => {}
        }
    }
}

fn remove_unknown_keys(
    table: &mut DeTable<'_>,
    known: &BTreeSet<String>,
    section: &str,
    problems: &mut Problems,
) {
    let unknown: Vec<_> = table
        .keys()
        .filter(|key| !known.contains(key.get_ref().as_ref()))
        .cloned()
        .collect();
    for key in unknown {
        let help = match closest(key.get_ref(), known.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("{section} has {}", list(known)),
        };
        problems.add_with_help(
            Some(key.span()),
            format!("unknown key `{}` in {section}", key.get_ref()),
            help,
        );
        table.remove(&key);
    }
}

/// The keys of a table.
pub(in crate::config) fn keys<T: JsonSchema>() -> BTreeSet<String> {
    Form::of(&schema_of::<T>()).keys()
}

fn schema_of<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

/// What a value may look like, from the same schema that users validate with.
#[derive(Clone, Copy)]
struct Form<'a> {
    schema: &'a Value,
    node: &'a Value,
}

impl<'a> Form<'a> {
    fn of(schema: &'a Value) -> Self {
        Form {
            schema,
            node: schema,
        }
    }

    /// The alternatives of a node, references followed.
    fn alternatives(self) -> Vec<&'a Value> {
        let mut found = Vec::new();
        let mut waiting = vec![self.node];
        while let Some(node) = waiting.pop() {
            if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
                // Schemas made from structs of configuration do not refer to themselves.
                waiting.extend(self.schema.pointer(reference.trim_start_matches('#')));
            }
            for several in ["anyOf", "oneOf"] {
                waiting.extend(
                    node.get(several)
                        .and_then(Value::as_array)
                        .into_iter()
                        .flatten(),
                );
            }
            found.push(node);
        }
        found
    }

    fn properties(self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.alternatives()
            .into_iter()
            .filter_map(|node| node.get("properties")?.as_object())
            .flatten()
    }

    fn keys(self) -> BTreeSet<String> {
        self.properties().map(|(key, _)| key.clone()).collect()
    }

    fn required(self) -> Vec<&'a str> {
        self.alternatives()
            .into_iter()
            .filter_map(|node| node.get("required")?.as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    fn at(self, key: &str) -> Option<Self> {
        let (_, node) = self.properties().find(|(known, _)| *known == key)?;
        Some(Form { node, ..self })
    }

    fn items(self) -> Option<Self> {
        let node = self
            .alternatives()
            .into_iter()
            .find_map(|node| node.get("items"))?;
        Some(Form { node, ..self })
    }
}

/// Words in backquotes, for a message.
pub(super) fn list(words: &BTreeSet<String>) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// Says the deserialiser's words for Rust types in a user's words.
fn plain(message: &str) -> String {
    let mut message = message.trim().to_owned();
    for (rust, words) in [
        (
            "expected u32",
            "expected a whole number from 0 to 4294967295",
        ),
        ("expected u64", "expected a whole number from 0 upwards"),
        ("expected a boolean", "expected true or false"),
        (
            "expected a sequence",
            "expected a list such as [\"a\", \"b\"]",
        ),
        ("invalid type: ", "this is "),
        ("invalid value: ", "this is "),
    ] {
        message = message.replace(rust, words);
    }
    message
}
