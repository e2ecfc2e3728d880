//! What single values mean: numbers in their range, names that may be taken once, references to secrets.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};

use crate::keys::Secret;

use super::super::file::Located;
use super::super::problems::{Problems, closest};
use super::{Scope, Secrets};

/// Names that may be taken once.
#[derive(Default)]
pub(super) struct Names(HashMap<String, Option<Range<usize>>>);

impl Names {
    pub(super) fn free(&mut self, name: &str, span: Option<Range<usize>>) -> bool {
        self.0.insert(name.to_owned(), span).is_none()
    }

    /// A missing name has been reported with its table already.
    pub(super) fn take(
        &mut self,
        name: Option<&Located<String>>,
        what: &str,
        problems: &mut Problems,
    ) -> String {
        let Some(name) = name else {
            return String::new();
        };
        let (text, span) = (name.get(), name.span());
        // An engine's name is also that of a folder; a model's may be a path such as `vendor/model:tag`.
        let signs: &[u8] = match what {
            "engine" => b"-_",
            "upstream" => b"-_.",
            "worker" => b"-_.:",
            _ => b"-_.:/@+",
        };
        let sound = (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || signs.contains(&byte));
        if !sound {
            let signs: Vec<String> = signs
                .iter()
                .map(|sign| format!("`{}`", char::from(*sign)))
                .collect();
            problems.add_with_help(
                Some(span),
                format!("`{text}` is no name for an {what}")
                    .replace("an model", "a model")
                    .replace("an worker", "a worker"),
                format!("use 1 to 128 letters, digits and {}", signs.join(" ")),
            );
        } else if !self.free(text, Some(span.clone())) {
            problems.add(
                Some(span),
                format!("the {what} name `{text}` is taken already"),
            );
        }
        text.clone()
    }
}

/// A number in its range, or the default.
pub(super) fn number<T: Copy + PartialOrd + std::fmt::Display>(
    value: &Option<Located<T>>,
    key: &str,
    range: RangeInclusive<T>,
    default: T,
    problems: &mut Problems,
) -> T {
    optional(value, key, range, problems).unwrap_or(default)
}

/// A number in its range, if it is there.
pub(super) fn optional<T: Copy + PartialOrd + std::fmt::Display>(
    value: &Option<Located<T>>,
    key: &str,
    range: RangeInclusive<T>,
    problems: &mut Problems,
) -> Option<T> {
    let located = value.as_ref()?;
    let value = *located.get();
    if range.contains(&value) {
        return Some(value);
    }
    problems.add(
        Some(located.span()),
        format!(
            "`{key}` is {value}, which is not between {} and {}",
            range.start(),
            range.end()
        ),
    );
    None
}

/// As [`number`], for sizes of things in memory.
pub(super) fn size(
    value: &Option<Located<u64>>,
    key: &str,
    range: RangeInclusive<u64>,
    default: u64,
    problems: &mut Problems,
) -> usize {
    usize::try_from(number(value, key, range, default, problems)).unwrap_or(usize::MAX)
}
/// Follows `env:NAME` or `file:PATH`. The error never repeats the text: it may be the secret itself.
pub(super) fn secret(reference: &str, scope: &Scope<'_>) -> Result<Secret, (String, String)> {
    if let Some(name) = reference.strip_prefix("env:") {
        return scope.environment.get(name).map(Secret::new).ok_or_else(|| {
            (
                format!("the environment variable {name} is not set"),
                format!("set {name}, or point to a file with `file:PATH`"),
            )
        });
    }
    if let Some(path) = reference.strip_prefix("file:") {
        let path = scope.folder.join(path);
        return match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Secret::new(text.trim())),
            Err(error) => Err((
                format!("{} can't be read: {error}", path.display()),
                "relative paths start at the folder of the configuration file".into(),
            )),
        };
    }
    Err((
        "secrets are not written into the configuration, only referred to".into(),
        "write `env:NAME` or `file:PATH`".into(),
    ))
}

/// The secret that a setting refers to. `None` where it is absent, not followed now, or can't be had, which is reported.
pub(super) fn referred(
    value: &Option<Located<String>>,
    key: &str,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> Option<Secret> {
    let reference = value.as_ref()?;
    if scope.secrets == Secrets::Ignore {
        return None;
    }
    match secret(reference.get(), scope) {
        Ok(secret) => Some(secret),
        Err((message, help)) => {
            problems.add_with_help(Some(reference.span()), format!("`{key}`: {message}"), help);
            None
        }
    }
}

/// What to say about a name that nothing has.
pub(super) fn did_you_mean<'a>(
    typed: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    all_of_them: &str,
) -> String {
    if let Some(meant) = closest(typed, known.clone()) {
        return format!("did you mean `{meant}`?");
    }
    let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    format!("{all_of_them} {}", known.join(", "))
}
