//! Which database, and how it is used.

use std::ops::Range;
use std::time::Duration;

use holdfast_seal::DataKey;
use holdfast_store::PostgresOptions;

use super::super::StorageConfig;
use super::super::file::{Located, SharedTable, Storage};
use super::super::problems::Problems;
use super::values::{number, secret};
use super::{Scope, Secrets};
use crate::data_key::{EncryptionConfig, KeySource};
use crate::keys::Secret;
use crate::shared::SharedOptions;

/// The whole URL, where it may have a password in it.
const BY_REFERENCE: &str =
    "put the whole URL into a variable or a file and write `env:NAME` or `file:PATH`";

pub(super) fn storage(file: &Storage, scope: &Scope<'_>, problems: &mut Problems) -> StorageConfig {
    let (url, name, span) = if let Some(url) = scope.environment.get("HOLDFAST_STORAGE_URL") {
        (Ok(url.to_owned()), "HOLDFAST_STORAGE_URL", None)
    } else if let Some(url) = &file.url {
        let text = url.get().as_str();
        // Problems show the line that they are about, and this one may have a password in it.
        let span = is_reference(text).then(|| url.span());
        (followed(text, scope), "`url` in [storage]", span)
    } else {
        refuse_without_url(file, problems);
        return StorageConfig::Sqlite;
    };
    let url = match url {
        Ok(url) => url,
        Err((why, _)) if scope.secrets == Secrets::Ignore => {
            return StorageConfig::OutOfReach(format!("{name}: {why}"));
        }
        Err((why, help)) => {
            problems.add_with_help(span, format!("{name}: {why}"), help);
            return StorageConfig::Sqlite;
        }
    };
    let options = PostgresOptions {
        connections_max: number(
            &file.connections_max,
            "connections_max",
            1..=1000,
            16,
            problems,
        ),
        connection_wait: milliseconds(
            &file.connection_wait_ms,
            "connection_wait_ms",
            5_000,
            problems,
        ),
        statement_time_max: milliseconds(
            &file.statement_ms_max,
            "statement_ms_max",
            10_000,
            problems,
        ),
        ..PostgresOptions::new(url)
    };
    if let Some(problem) = options.problem() {
        problems.add_with_help(
            span,
            format!("{name}: {problem}"),
            "write for example `postgres://holdfast@db.internal/holdfast`",
        );
    }
    StorageConfig::Postgres(options)
}

/// Which keys seal and open. A command is not run here: `config check` has no business with a key service.
pub(super) fn encryption(
    file: &Storage,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> EncryptionConfig {
    let Some(table) = file.encryption.as_ref() else {
        return EncryptionConfig::default();
    };
    let table = table.get();
    let mut source = |name: &str, reference: &Located<String>| match key_source(reference, scope) {
        Ok(source) => Some(source),
        Err((why, _)) if scope.secrets == Secrets::Ignore => Some(KeySource::OutOfReach(why)),
        Err((why, help)) => {
            problems.add_with_help(
                // Problems show the line that they are about, and what is no reference may be a key.
                is_key_reference(reference.get()).then(|| reference.span()),
                format!("`{name}` in [storage.encryption]: {why}"),
                help,
            );
            None
        }
    };
    let previous = table.previous_keys.iter().flat_map(Located::get);
    EncryptionConfig {
        key: table.key.as_ref().and_then(|key| source("key", key)),
        previous: previous
            .filter_map(|key| source("previous_keys", key))
            .collect(),
    }
}

fn key_source(
    reference: &Located<String>,
    scope: &Scope<'_>,
) -> Result<KeySource, (String, String)> {
    let text = reference.get();
    if let Some(command) = text.strip_prefix("command:") {
        return KeySource::command(command, &scope.folder).ok_or_else(|| {
            (
                "there is no command".to_owned(),
                "write `command:PROGRAM ARGUMENTS`".to_owned(),
            )
        });
    }
    if !is_reference(text) {
        return Err((
            "keys are not written into the configuration, only referred to".into(),
            "write `env:NAME`, `file:PATH` or `command:PROGRAM ARGUMENTS`".into(),
        ));
    }
    let key: Secret = secret(text, scope)?;
    if let Err(error) = DataKey::parse(key.expose()) {
        return Err((
            format!("what it refers to is no data key: {error}"),
            "keep a copy of the key: without it nothing that it sealed can be read".into(),
        ));
    }
    Ok(KeySource::Known(key))
}

fn is_key_reference(text: &str) -> bool {
    is_reference(text) || text.starts_with("command:")
}

/// `None` without a URL, and where it can't be had by a command that does not serve.
pub(super) fn shared(
    file: &SharedTable,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> Option<SharedOptions> {
    let (url, name, span) = if let Some(url) = scope.environment.get("HOLDFAST_SHARED_URL") {
        (Ok(url.to_owned()), "HOLDFAST_SHARED_URL", None)
    } else {
        let url = file.url.as_ref()?;
        let text = url.get().as_str();
        // Problems show the line that they are about, and this one may have a password in it.
        let span = is_reference(text).then(|| url.span());
        (followed(text, scope), "`url` in [shared]", span)
    };
    let mut options = match url {
        Ok(url) => SharedOptions::new(url),
        Err(_) if scope.secrets == Secrets::Ignore => return None,
        Err((why, help)) => {
            problems.add_with_help(span, format!("{name}: {why}"), help);
            return None;
        }
    };
    if let Some(problem) = options.problem() {
        problems.add_with_help(
            span,
            format!("{name}: {problem}"),
            "write for example `redis://redis.internal:6379`",
        );
    }
    if let Some(contexts) = &file.contexts {
        options.contexts = *contexts.get();
    }
    if let Some(prefix) = &file.prefix {
        let text = prefix.get();
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=64).contains(&text.len()) || !text.bytes().all(is_fit) {
            problems.add_with_help(
                Some(prefix.span()),
                "`prefix` can't begin a key's name",
                "use 1 to 64 letters, digits, `-`, `_` and `.`",
            );
        }
        options.prefix.clone_from(text);
    }
    Some(options)
}

fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

/// The URL itself. The error never repeats the text.
fn followed(text: &str, scope: &Scope<'_>) -> Result<String, (String, String)> {
    if is_reference(text) {
        return secret(text, scope).map(|url| url.expose().to_owned());
    }
    if has_password(text) {
        return Err((
            "a password is not written into the configuration, only referred to".into(),
            BY_REFERENCE.into(),
        ));
    }
    Ok(text.to_owned())
}

/// In its usual place or among the parameters; a text that is no URL may be anything.
fn has_password(text: &str) -> bool {
    let Some((_, after_scheme)) = text.split_once("://") else {
        return false;
    };
    let user = after_scheme.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || text.contains("password=")
}

/// Settings of a database that is not named do nothing, and whoever wrote them thinks otherwise.
fn refuse_without_url(file: &Storage, problems: &mut Problems) {
    let mut refuse = |key: &str, span: Option<Range<usize>>| {
        if span.is_some() {
            problems.add_with_help(
                span,
                format!("`{key}` is for PostgreSQL, and there is no `url`"),
                "add `url = \"env:NAME\"`, or leave it out: SQLite in the data directory needs no settings",
            );
        }
    };
    let spans = (
        file.connections_max.as_ref().map(Located::span),
        file.connection_wait_ms.as_ref().map(Located::span),
        file.statement_ms_max.as_ref().map(Located::span),
    );
    refuse("connections_max", spans.0);
    refuse("connection_wait_ms", spans.1);
    refuse("statement_ms_max", spans.2);
}

fn milliseconds(
    value: &Option<Located<u64>>,
    key: &str,
    default: u64,
    problems: &mut Problems,
) -> Duration {
    Duration::from_millis(number(value, key, 100..=600_000, default, problems))
}
