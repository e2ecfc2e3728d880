//! Credentials to headers.

mod aws;
mod google;

use bytes::Bytes;
use holdfast_protocol::provider::AuthScheme;
use holdfast_protocol::upstream::Failure;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::options::{Credentials, UpstreamOptions};
use crate::app::Clock;
use aws::AwsSigner;
use google::GoogleTokens;

/// Proves to one upstream who sends a request.
pub(super) enum Authorizer {
    /// Nothing is needed.
    None,
    /// The same header every time.
    Header(HeaderName, HeaderValue),
    /// Short-lived tokens of a service account.
    Google(GoogleTokens),
    /// A signature over each request.
    Aws(AwsSigner),
}

impl Authorizer {
    /// # Errors
    /// The credentials are malformed, or not of a kind that the provider takes.
    pub(super) fn new(
        options: &UpstreamOptions,
        client: reqwest::Client,
        clock: &Clock,
    ) -> Result<Self, String> {
        Ok(match (&options.credentials, options.provider.auth) {
            (Credentials::None, _) => Authorizer::None,
            (Credentials::Key(key), AuthScheme::Header(name)) => {
                Authorizer::Header(HeaderName::from_static(name), sensitive(key.expose())?)
            }
            (Credentials::Key(key), AuthScheme::Google) => Authorizer::Header(
                HeaderName::from_static("x-goog-api-key"),
                sensitive(key.expose())?,
            ),
            (Credentials::Key(key), _) => Authorizer::Header(AUTHORIZATION, bearer(key.expose())?),
            (Credentials::GoogleServiceAccount(json), AuthScheme::Google) => {
                Authorizer::Google(GoogleTokens::new(json, client, clock)?)
            }
            (
                Credentials::Aws {
                    access_key_id,
                    secret_access_key,
                    session_token,
                },
                AuthScheme::Aws(service),
            ) => Authorizer::Aws(AwsSigner::new(
                access_key_id,
                secret_access_key,
                session_token.as_ref(),
                &options.region,
                service,
                clock,
            )),
            (Credentials::GoogleServiceAccount(_) | Credentials::Aws { .. }, _) => {
                return Err(format!(
                    "{} does not take such credentials",
                    options.provider.title
                ));
            }
        })
    }

    /// Adds what proves the sender.
    pub(super) async fn authorize(
        &self,
        method: &reqwest::Method,
        url: &reqwest::Url,
        headers: &mut HeaderMap,
        body: &[Bytes],
    ) -> Result<(), Failure> {
        match self {
            Authorizer::None => Ok(()),
            Authorizer::Header(name, value) => {
                headers.insert(name.clone(), value.clone());
                Ok(())
            }
            Authorizer::Google(tokens) => {
                headers.insert(AUTHORIZATION, tokens.bearer().await?);
                Ok(())
            }
            Authorizer::Aws(signer) => signer.sign(method, url, headers, body),
        }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| "the key has characters that can't be sent in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
