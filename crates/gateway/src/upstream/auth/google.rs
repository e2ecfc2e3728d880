//! Access tokens for a Google service account: a signed statement is traded for a token that lasts about an hour.

use holdfast_protocol::UnixMillis;
use holdfast_protocol::upstream::{Failure, FailureKind};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::bearer;
use crate::app::Clock;
use crate::keys::Secret;

/// What the token may do: everything that the account may.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The longest life Google gives a statement, seconds.
const STATEMENT_SECONDS: i64 = 3600;

/// A token is replaced so long before its end, milliseconds.
const MARGIN_MS: i64 = 300_000;

/// Largest answer of the token endpoint, bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Tokens of one service account.
pub(crate) struct GoogleTokens {
    account: ServiceAccount,
    key: EncodingKey,
    client: reqwest::Client,
    clock: Clock,
    /// Locked while a token is fetched, so that one request does it for all.
    current: Mutex<Option<(HeaderValue, UnixMillis)>>,
}

/// What is used of the account's JSON file.
#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: Option<String>,
    token_uri: String,
}

#[derive(Serialize)]
struct Statement<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
    expires_in: i64,
}

impl GoogleTokens {
    /// # Errors
    /// The text is not the JSON of a service account, or its key is none.
    pub(super) fn new(
        json: &Secret,
        client: reqwest::Client,
        clock: &Clock,
    ) -> Result<Self, String> {
        // serde's text may quote the file, which holds a private key.
        let account: ServiceAccount = serde_json::from_str(json.expose()).map_err(|_| {
            "this is not the JSON of a service account: it needs client_email, private_key and token_uri"
                .to_owned()
        })?;
        let key = EncodingKey::from_rsa_pem(account.private_key.as_bytes())
            .map_err(|_| "the service account's private_key is not an RSA key in PEM".to_owned())?;
        Ok(GoogleTokens {
            account,
            key,
            client,
            clock: clock.clone(),
            current: Mutex::default(),
        })
    }

    pub(super) async fn bearer(&self) -> Result<HeaderValue, Failure> {
        let mut current = self.current.lock().await;
        let now = (self.clock)();
        if let Some((value, expires_at)) = &*current
            && *expires_at - MARGIN_MS > now
        {
            return Ok(value.clone());
        }
        let token = self.fetch(now.div_euclid(1000)).await?;
        let value = bearer(&token.access_token).map_err(|_| refused())?;
        *current = Some((value.clone(), now + token.expires_in.max(0) * 1000));
        Ok(value)
    }

    async fn fetch(&self, now_seconds: i64) -> Result<Token, Failure> {
        let statement = Statement {
            iss: &self.account.client_email,
            scope: SCOPE,
            aud: &self.account.token_uri,
            iat: now_seconds,
            exp: now_seconds + STATEMENT_SECONDS,
        };
        let mut header = Header::new(Algorithm::RS256);
        header.kid.clone_from(&self.account.private_key_id);
        let signed = jsonwebtoken::encode(&header, &statement, &self.key).map_err(|_| refused())?;
        // Both values are of characters that a form takes as they are, but for the colons of the grant type.
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={signed}"
        );
        let unreachable = || {
            Failure::new(
                FailureKind::Connection,
                "the token endpoint can't be reached",
            )
        };
        let mut response = self
            .client
            .post(&self.account.token_uri)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .map_err(|_| unreachable())?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| unreachable())? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(refused());
            }
        }
        if status.is_server_error() {
            return Err(Failure::new(
                FailureKind::ServerError,
                "the token endpoint failed",
            ));
        }
        if !status.is_success() {
            return Err(refused());
        }
        serde_json::from_slice(&body).map_err(|_| refused())
    }
}

fn refused() -> Failure {
    Failure::new(
        FailureKind::Unauthorized,
        "the token endpoint did not give a token for the service account",
    )
}
