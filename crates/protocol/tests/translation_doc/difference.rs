//! Where two JSON documents differ, in few words.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{code, has_probe};

/// The longest word that is shown with its path, bytes.
const WORD_LENGTH_MAX: usize = 20;
/// The most paths that a cell shows.
const PATHS_MAX: usize = 2;

/// A value at the bottom of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Leaf {
    /// Names from the top, without indexes.
    pub(crate) path: Vec<String>,
    value: Value,
    /// `role` of the nearest object around it that has one.
    role: Option<String>,
}

impl Leaf {
    /// The names joined.
    pub(crate) fn name(&self) -> String {
        self.path.join(".")
    }

    pub(crate) fn is_probe(&self) -> bool {
        self.value.as_str().is_some_and(has_probe)
    }

    /// Whether it is the text of a message, of which it matters who says it.
    pub(crate) fn is_said(&self) -> bool {
        self.is_probe() && self.path == ["messages", "content", "text"]
    }

    /// Words and truth values; all others say no more than that there is something.
    fn word(&self) -> Option<String> {
        match &self.value {
            Value::Bool(value) => Some(value.to_string()),
            Value::String(text) => {
                let is_word = text
                    .chars()
                    .all(|symbol| symbol.is_ascii_alphabetic() || matches!(symbol, '_' | '/'));
                (is_word && !has_probe(text) && (1..=WORD_LENGTH_MAX).contains(&text.len()))
                    .then(|| text.clone())
            }
            _ => None,
        }
    }
}

fn leaves(value: &Value) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    collect(value, &mut Vec::new(), None, &mut leaves);
    leaves
}

fn collect(value: &Value, path: &mut Vec<String>, role: Option<&str>, leaves: &mut Vec<Leaf>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let role = fields.get("role").and_then(Value::as_str).or(role);
            for (name, value) in fields {
                path.push(name.clone());
                collect(value, path, role, leaves);
                path.pop();
            }
        }
        Value::Array(values) if !values.is_empty() => {
            for value in values {
                collect(value, path, role, leaves);
            }
        }
        value => leaves.push(Leaf {
            path: path.clone(),
            value: value.clone(),
            role: role.map(str::to_owned),
        }),
    }
}

/// What `changed` has that `base` has not. Where a probe is among it, only that counts: the rest is its wrapping.
pub(crate) fn added(base: &Value, changed: &Value) -> Vec<Leaf> {
    let mut added = all_added(base, changed);
    if added.iter().any(Leaf::is_probe) {
        added.retain(Leaf::is_probe);
    }
    added
}

/// The same with its wrapping.
pub(crate) fn all_added(base: &Value, changed: &Value) -> Vec<Leaf> {
    let mut known = leaves(base);
    let mut added = Vec::new();
    for leaf in leaves(changed) {
        let is_same = |other: &Leaf| (&other.path, &other.value) == (&leaf.path, &leaf.value);
        match known.iter().position(is_same) {
            Some(at) => drop(known.swap_remove(at)),
            None => added.push(leaf),
        }
    }
    added
}

/// What `base` has of a list that `changed` has less of, by the names of such lists.
pub(crate) fn lessened(base: &Value, changed: &Value) -> BTreeSet<String> {
    let added = all_added(base, changed);
    let removed = all_added(changed, base);
    let is_changed = |leaf: &Leaf| added.iter().any(|other| other.path.starts_with(&leaf.path));
    let lost = removed.into_iter().filter(|leaf| !is_changed(leaf));
    lost.map(|leaf| leaf.path[0].clone()).collect()
}

/// Where `added` stands, in at most two paths; with the role of the message where `is_placed`.
pub(crate) fn shown(base: &Value, added: &[Leaf], is_placed: bool) -> String {
    let known: BTreeSet<Vec<String>> = leaves(base)
        .into_iter()
        .flat_map(|leaf| (1..=leaf.path.len()).map(move |end| leaf.path[..end].to_vec()))
        .collect();
    let mut groups: Vec<(Vec<String>, Vec<&Leaf>)> = Vec::new();
    for leaf in added {
        let top = (1..leaf.path.len())
            .find(|end| !known.contains(&leaf.path[..*end]))
            .unwrap_or(leaf.path.len());
        let top = leaf.path[..top].to_vec();
        match groups.iter_mut().find(|(known, _)| *known == top) {
            Some((_, leaves)) => leaves.push(leaf),
            None => groups.push((top, vec![leaf])),
        }
    }
    let mut places: Vec<String> = Vec::new();
    for (_, leaves) in groups {
        let place = place(&leaves, is_placed);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let more = places.len() > PATHS_MAX;
    places.truncate(PATHS_MAX);
    let places = places.join(", ");
    if more {
        format!("{places}, ...")
    } else {
        places
    }
}

/// Of leaves that came together.
fn place(leaves: &[&Leaf], is_placed: bool) -> String {
    let first = leaves[0];
    let common = leaves.iter().fold(first.path.len(), |common, leaf| {
        let same = first.path.iter().zip(&leaf.path);
        same.take_while(|(one, other)| one == other)
            .count()
            .min(common)
    });
    let path = first.path[..common].join(".");
    if is_placed {
        let text = first.value.as_str().unwrap_or_default();
        let role = first.role.as_deref();
        let role = role.map_or(String::new(), |role| format!(" as {}", code(role)));
        let wrapped = if text.starts_with("<system>") {
            " in `<system>`"
        } else {
            ""
        };
        return format!("{}{role}{wrapped}", code(&path));
    }
    match leaves {
        [leaf] => match leaf.word() {
            Some(word) => code(&format!("{path}: {word}")),
            None => code(&path),
        },
        _ => code(&path),
    }
}
