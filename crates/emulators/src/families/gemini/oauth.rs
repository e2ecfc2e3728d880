//! Google's OAuth token endpoint, as far as service accounts use it: a signed JWT is exchanged for an access token.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Checked, Gemini, percent_decoded};
use crate::{Desk, RawRequest, Reply};

/// The one service account there is.
pub const SERVICE_ACCOUNT_EMAIL: &str = "gateway@test-project.iam.gserviceaccount.com";
/// The project of the service account.
pub const SERVICE_ACCOUNT_PROJECT: &str = "test-project";
/// The id of its key, for the header of the JWT.
pub const SERVICE_ACCOUNT_KEY_ID: &str = "0123456789abcdef0123456789abcdef01234567";
/// Its private key (PKCS #8). It was made for tests and opens nothing.
pub const SERVICE_ACCOUNT_PRIVATE_KEY_PEM: &str = include_str!("service_account_private_key.pem");
/// Its public key (PKCS #1).
pub const SERVICE_ACCOUNT_PUBLIC_KEY_PEM: &str = include_str!("service_account_public_key.pem");

/// What the scope of a token must contain to reach Vertex AI.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Google's own token endpoint; an assertion may name it as its audience wherever it is sent.
const AUDIENCE: &str = "https://oauth2.googleapis.com/token";
/// Lifetime of a token, seconds.
const TOKEN_SECONDS: i64 = 3599;
/// Longest lifetime of an assertion, seconds.
const ASSERTION_SECONDS_MAX: i64 = 3600;
/// How far a client's clock may be off, seconds.
const SKEW_SECONDS_MAX: i64 = 300;

/// The file that an operator downloads for a service account, with `token_uri` as its token endpoint.
pub fn service_account_json(token_uri: &str) -> Value {
    json!({
        "type": "service_account",
        "project_id": SERVICE_ACCOUNT_PROJECT,
        "private_key_id": SERVICE_ACCOUNT_KEY_ID,
        "private_key": SERVICE_ACCOUNT_PRIVATE_KEY_PEM,
        "client_email": SERVICE_ACCOUNT_EMAIL,
        "client_id": "100000000000000000000",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    })
}

/// A token that was given out.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) token: String,
    pub(super) expires_ms: i64,
}

impl Gemini {
    /// `POST /token`.
    pub(super) fn token(&self, request: &RawRequest, desk: &Desk<'_>) -> Reply {
        let form = request.header("content-type").unwrap_or_default();
        if !form.starts_with("application/x-www-form-urlencoded") {
            return refusal("invalid_request", "Could not parse the request body.");
        }
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let field = |name: &str| {
            body.split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| percent_decoded(&value.replace('+', " ")))
        };
        let grant_type = field("grant_type").unwrap_or_default();
        if grant_type != GRANT_TYPE {
            return refusal(
                "unsupported_grant_type",
                &format!("Invalid grant_type: {grant_type}"),
            );
        }
        let own = request
            .header("host")
            .map(|host| format!("http://{host}/token"));
        if let Err(reason) = check_assertion(
            &field("assertion").unwrap_or_default(),
            own.as_deref(),
            desk,
        ) {
            return *reason;
        }
        let token = format!("ya29.emulated-{}", desk.next_id());
        self.state.lock().unwrap().issued.push(Issued {
            token: token.clone(),
            expires_ms: desk.now_ms + TOKEN_SECONDS * 1000,
        });
        let reply =
            json!({"access_token": token, "expires_in": TOKEN_SECONDS, "token_type": "Bearer"});
        Reply::json(200, &reply)
    }
}

fn check_assertion(assertion: &str, own: Option<&str>, desk: &Desk<'_>) -> Checked<()> {
    let parts: Vec<&str> = assertion.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        return Err(refused("invalid_grant", "Bad Request"));
    };
    let decode = |part: &str| data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).ok();
    let json_of = |part: &str| -> Option<Value> { serde_json::from_slice(&decode(part)?).ok() };
    let (Some(header_json), Some(claims_json), Some(signature)) =
        (json_of(header), json_of(claims), decode(signature))
    else {
        return Err(refused("invalid_grant", "Invalid JWT: Failed to decode."));
    };
    if header_json["alg"] != "RS256" {
        return Err(refused(
            "invalid_grant",
            "Invalid JWT: Unsupported algorithm.",
        ));
    }
    if claims_json["iss"] != SERVICE_ACCOUNT_EMAIL {
        return Err(refused("invalid_grant", "Invalid grant: account not found"));
    }
    let signed = format!("{header}.{claims}");
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key())
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| refused("invalid_grant", "Invalid JWT Signature."))?;
    let audience = claims_json["aud"].as_str().unwrap_or_default();
    if audience != AUDIENCE && Some(audience) != own {
        return Err(refused(
            "invalid_grant",
            "Invalid JWT: Failed audience check.",
        ));
    }
    let (Some(issued), Some(expires)) = (claims_json["iat"].as_i64(), claims_json["exp"].as_i64())
    else {
        return Err(refused(
            "invalid_grant",
            "Invalid JWT: iat and exp are required.",
        ));
    };
    // The client's clock is the real one, whatever a test has done to the emulator's: either will do.
    let is_timely = [desk.now_ms.div_euclid(1000), Timestamp::now().as_second()]
        .iter()
        .any(|now| issued <= now + SKEW_SECONDS_MAX && expires > now - SKEW_SECONDS_MAX);
    if !is_timely || expires <= issued || expires - issued > ASSERTION_SECONDS_MAX {
        return Err(refused(
            "invalid_grant",
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your \
             iat and exp values in the JWT claim.",
        ));
    }
    let scope = claims_json["scope"].as_str().unwrap_or_default();
    if !scope.split(' ').any(|scope| scope == SCOPE) {
        return Err(refused(
            "invalid_scope",
            "Invalid OAuth scope or ID token audience provided.",
        ));
    }
    Ok(())
}

fn public_key() -> Vec<u8> {
    let text: String = SERVICE_ACCOUNT_PUBLIC_KEY_PEM
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    data_encoding::BASE64.decode(text.as_bytes()).unwrap()
}

fn refusal(error: &str, description: &str) -> Reply {
    Reply::json(
        400,
        &json!({"error": error, "error_description": description}),
    )
}

fn refused(error: &str, description: &str) -> Box<Reply> {
    Box::new(refusal(error, description))
}
