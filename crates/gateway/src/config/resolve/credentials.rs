//! Credentials of upstreams: of the kind that the provider takes, and by reference only.

use std::ops::Range;

use holdfast_protocol::provider::{AuthScheme, Provider};

use super::super::file::{Located, UpstreamTable};
use super::super::problems::Problems;
use super::Scope;
use super::values::referred;
use crate::app::Credentials;
use crate::keys::Secret;

/// What requests to an upstream prove their sender with. [`Credentials::None`] also where references are not followed.
pub(super) fn credentials(
    table: &UpstreamTable,
    provider: &Provider,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> Credentials {
    let here = table.name.as_ref().map(Located::span);
    let aws = [
        ("access_key_id", &table.access_key_id),
        ("secret_access_key", &table.secret_access_key),
        ("session_token", &table.session_token),
    ];
    refuse_foreign(table, &aws, provider, problems);
    let has_aws = aws.iter().any(|(_, value)| value.is_some());
    let kinds = [
        table.api_key.is_some(),
        table.service_account.is_some(),
        has_aws,
    ];
    match kinds.into_iter().filter(|is_given| *is_given).count() {
        0 => {
            if let Some(help) = how_to_prove(provider.auth) {
                problems.add_with_help(
                    here,
                    format!("{} needs credentials", provider.title),
                    help,
                );
            }
            return Credentials::None;
        }
        1 => {}
        _ => problems.add_with_help(
            here.clone(),
            "this upstream has several credentials",
            "keep one of `api_key`, `service_account` and the AWS keys; a second account is an upstream of its own",
        ),
    }
    if table.api_key.is_some() {
        return key(table, scope, problems).map_or(Credentials::None, Credentials::Key);
    }
    if table.service_account.is_some() {
        return service_account(table, scope, problems)
            .map_or(Credentials::None, Credentials::GoogleServiceAccount);
    }
    for (key, value) in aws.iter().take(2) {
        if value.is_none() {
            problems.add_with_help(
                here.clone(),
                format!("`{key}` is missing: AWS keys come in pairs"),
                format!("add `{key} = \"env:NAME\"`"),
            );
        }
    }
    let mut follow = |(name, value): (&str, &Option<Located<String>>)| {
        let secret = referred(value, name, scope, problems)?;
        check_sendable(value, name, &secret, problems);
        Some(secret)
    };
    let [id, secret, token] = aws;
    let (id, secret, token) = (follow(id), follow(secret), follow(token));
    match (id, secret) {
        (Some(id), Some(secret_access_key)) => Credentials::Aws {
            access_key_id: id.expose().to_owned(),
            secret_access_key,
            session_token: token,
        },
        _ => Credentials::None,
    }
}

/// Reports credentials that the provider does not take.
fn refuse_foreign(
    table: &UpstreamTable,
    aws: &[(&'static str, &Option<Located<String>>)],
    provider: &Provider,
    problems: &mut Problems,
) {
    let mut refuse = |key: &str, span: Range<usize>| {
        problems.add_with_help(
            Some(span),
            format!("{} takes no `{key}`", provider.title),
            how_to_prove(provider.auth).unwrap_or("leave it out, or use `api_key`"),
        );
    };
    if let Some(account) = &table.service_account
        && provider.auth != AuthScheme::Google
    {
        refuse("service_account", account.span());
    }
    if !matches!(provider.auth, AuthScheme::Aws(_)) {
        for (key, value) in aws {
            if let Some(value) = value {
                refuse(key, value.span());
            }
        }
    }
}

/// What to add; `None` where nothing is needed.
fn how_to_prove(auth: AuthScheme) -> Option<&'static str> {
    match auth {
        AuthScheme::Bearer | AuthScheme::Header(_) => {
            Some("add `api_key = \"env:NAME\"` or `api_key = \"file:PATH\"`")
        }
        AuthScheme::Google => {
            Some("add `api_key = \"env:NAME\"` or `service_account = \"file:PATH\"`")
        }
        AuthScheme::Aws(_) => Some(
            "add `access_key_id = \"env:AWS_ACCESS_KEY_ID\"` and `secret_access_key = \"env:AWS_SECRET_ACCESS_KEY\"`, or \
             `api_key` with a Bedrock key",
        ),
        AuthScheme::Optional => None,
    }
}

fn key(table: &UpstreamTable, scope: &Scope<'_>, problems: &mut Problems) -> Option<Secret> {
    let key = referred(&table.api_key, "api_key", scope, problems)?;
    check_sendable(&table.api_key, "api_key", &key, problems);
    Some(key)
}

fn check_sendable(
    value: &Option<Located<String>>,
    key: &str,
    secret: &Secret,
    problems: &mut Problems,
) {
    let text = secret.expose();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        problems.add(
            value.as_ref().map(Located::span),
            format!("`{key}`: it may only have printable ASCII characters and no spaces, and not be empty"),
        );
    }
}

fn service_account(
    table: &UpstreamTable,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> Option<Secret> {
    let account = referred(&table.service_account, "service_account", scope, problems)?;
    let parsed: Option<serde_json::Value> = serde_json::from_str(account.expose()).ok();
    let is_sound = parsed.is_some_and(|json| {
        ["client_email", "private_key", "token_uri"]
            .iter()
            .all(|key| json.get(key).is_some_and(serde_json::Value::is_string))
    });
    if !is_sound {
        problems.add_with_help(
            table.service_account.as_ref().map(Located::span),
            "`service_account`: this is not the JSON of a service account's key",
            "it has `client_email`, `private_key` and `token_uri`; `gcloud iam service-accounts keys create` makes one",
        );
    }
    Some(account)
}
