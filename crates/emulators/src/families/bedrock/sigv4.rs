//! AWS Signature Version 4, verified as the service does: the canonical request is rebuilt from what arrived.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::Refusal;
use crate::request::RawRequest;

/// The access key that the emulator knows: the one of AWS's own examples.
pub const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";
/// Its secret.
pub const SECRET_ACCESS_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far the date of a request may be off where dates are checked.
const SKEW_SECONDS_MAX: i64 = 300;

/// Where a signature must have been made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// The time to compare dates with, seconds since the Unix epoch, where dates are checked.
    pub(super) now_seconds: Option<i64>,
}

/// Checks the signature of a request.
pub(super) fn verify(request: &RawRequest, scope: Scope<'_>) -> Result<(), Refusal> {
    let authorization = request.header("authorization").unwrap_or_default();
    let fields = authorization
        .strip_prefix(ALGORITHM)
        .filter(|fields| fields.starts_with(' '))
        .ok_or_else(|| {
            incomplete("Authorization header requires an algorithm that is supported.")
        })?;
    let value = |name: &str| {
        fields
            .split(',')
            .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
            .ok_or_else(|| {
                incomplete(&format!(
                    "Authorization header requires '{name}' parameter."
                ))
            })
    };
    let (credential, signed_headers, signature) = (
        value("Credential")?,
        value("SignedHeaders")?,
        value("Signature")?,
    );

    let date = request.header("x-amz-date").ok_or_else(|| {
        incomplete(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
        )
    })?;
    let seconds =
        seconds_of(date).ok_or_else(|| incomplete("Date must be in ISO-8601 'basic format'."))?;
    let parts: Vec<&str> = credential.split('/').collect();
    let [key_id, day, region, service, "aws4_request"] = parts[..] else {
        return Err(incomplete(
            "Credential must have exactly 5 slash-delimited elements.",
        ));
    };
    if key_id != ACCESS_KEY_ID {
        return Err(Refusal::new(
            403,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ));
    }
    if day != &date[..8] {
        return Err(mismatch(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.",
        ));
    }
    if region != scope.region {
        return Err(mismatch("Credential should be scoped to a valid region."));
    }
    if service != scope.service {
        return Err(mismatch(&format!(
            "Credential should be scoped to correct service: '{}'.",
            scope.service
        )));
    }
    if let Some(now_seconds) = scope.now_seconds
        && (now_seconds - seconds).abs() > SKEW_SECONDS_MAX
    {
        let problem = if seconds < now_seconds {
            "expired"
        } else {
            "not yet current"
        };
        return Err(mismatch(&format!("Signature {problem}: {date}")));
    }
    let names: Vec<&str> = signed_headers.split(';').collect();
    if !names.is_sorted()
        || names
            .iter()
            .any(|name| name.bytes().any(|byte| byte.is_ascii_uppercase()))
    {
        return Err(mismatch(
            "SignedHeaders must be in lower case and in order.",
        ));
    }
    let must_be_signed = |name: &str| name == "host" || name.starts_with("x-amz-");
    if let Some((name, _)) = request
        .headers
        .iter()
        .find(|(name, _)| must_be_signed(name) && !names.contains(&name.as_str()))
    {
        return Err(mismatch(&format!(
            "There were headers present in the request which were not signed: {name}"
        )));
    }
    if !names.contains(&"host") {
        return Err(mismatch(
            "'Host' must be a 'SignedHeader' in the AWS Authorization.",
        ));
    }

    let to_sign = format!(
        "{ALGORITHM}\n{date}\n{day}/{region}/{service}/aws4_request\n{}",
        sha256_hex(canonical_request(request, &names).as_bytes())
    );
    let key = [day, region, service, "aws4_request"].iter().fold(
        format!("AWS4{SECRET_ACCESS_KEY}").into_bytes(),
        |key, part| hmac(&key, part.as_bytes()),
    );
    if data_encoding::HEXLOWER.encode(&hmac(&key, to_sign.as_bytes())) == signature {
        Ok(())
    } else {
        Err(mismatch(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
             Key and signing method. Consult the service documentation for details.",
        ))
    }
}

fn incomplete(message: &str) -> Refusal {
    Refusal::new(403, "IncompleteSignatureException", message)
}

fn mismatch(message: &str) -> Refusal {
    Refusal::new(403, "InvalidSignatureException", message)
}

/// `20261122T093000Z`.
fn seconds_of(date: &str) -> Option<i64> {
    let has_shape = date.len() == 16
        && date.bytes().enumerate().all(|(index, byte)| match index {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    if !has_shape {
        return None;
    }
    let part = |range: std::ops::Range<usize>| &date[range];
    format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4),
        part(4..6),
        part(6..8),
        part(9..11),
        part(11..13),
        part(13..15)
    )
    .parse::<jiff::Timestamp>()
    .ok()
    .map(|timestamp| timestamp.as_second())
}

fn canonical_request(request: &RawRequest, names: &[&str]) -> String {
    // Every service but S3 encodes the path a second time.
    let path: Vec<String> = request
        .path
        .split('/')
        .map(|segment| percent_encode(segment.as_bytes()))
        .collect();
    let mut query: Vec<String> = request
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            format!(
                "{}={}",
                percent_encode(&percent_decode(name)),
                percent_encode(&percent_decode(value))
            )
        })
        .collect();
    query.sort();
    let headers: String = names
        .iter()
        .map(|name| {
            let values: Vec<String> = request
                .headers
                .iter()
                .filter(|(header, _)| header == name)
                .map(|(_, value)| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
                .collect();
            format!("{name}:{}\n", values.join(","))
        })
        .collect();
    format!(
        "{}\n{}\n{}\n{headers}\n{}\n{}",
        request.method,
        path.join("/"),
        query.join("&"),
        names.join(";"),
        sha256_hex(&request.body)
    )
}

fn sha256_hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn percent_encode(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(*byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The bytes that a percent-encoded text stands for; what is no code stays.
pub(super) fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let code = (bytes[index] == b'%')
            .then(|| text.get(index + 1..index + 3))
            .flatten()
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        decoded.push(code.unwrap_or(bytes[index]));
        index += if code.is_some() { 3 } else { 1 };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(signature: &str) -> RawRequest {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={signature}"
        );
        let headers = [
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
            ("authorization", &authorization),
        ];
        RawRequest {
            method: "GET".into(),
            path: "/".into(),
            query: String::new(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            body: bytes::Bytes::new(),
        }
    }

    /// `get-vanilla` of the test suite that AWS publishes for the algorithm.
    #[test]
    fn the_published_example_verifies_and_a_changed_one_does_not() {
        let scope = Scope {
            region: "us-east-1",
            service: "service",
            now_seconds: None,
        };
        let right = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        assert!(verify(&signed(right), scope).is_ok());
        let mut changed = signed(right);
        changed.query = "a=b".into();
        assert!(verify(&changed, scope).is_err());
        let at_the_time = Scope {
            now_seconds: Some(1_440_938_160 + 299),
            ..scope
        };
        assert!(verify(&signed(right), at_the_time).is_ok());
        let later = Scope {
            now_seconds: Some(1_440_938_160 + 301),
            ..scope
        };
        assert!(verify(&signed(right), later).is_err());
    }
}
