//! Ids of tool calls that carry what Gemini wants back with the call.
//!
//! Clients know no field for it and keep ids verbatim, so it travels there:
//! - `call_<response id>_<n>` where Gemini gave no id. It is never sent to Gemini.
//! - `gem_<id>` where it gave one, which is sent back.
//! - either with `~` and the `thoughtSignature` in base64url (without padding) after it. base64url has no `~`, so the
//!   last one begins the signature.
//!
//! Ids of other upstreams carry nothing and are not sent, but where they happen to look like these.

use data_encoding::BASE64URL_NOPAD;

const OURS: &str = "call_";
const GIVEN: &str = "gem_";

/// What an id carries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Carried<'a> {
    /// Gemini's own id.
    pub(super) id: Option<&'a str>,
    /// The call's signature.
    pub(super) signature: Option<String>,
}

/// An id for the answer's call number `number`.
pub(super) fn encode(
    given: Option<&str>,
    response_id: Option<&str>,
    number: u32,
    signature: Option<&str>,
) -> String {
    let mut id = match (given, response_id) {
        (Some(given), _) => format!("{GIVEN}{given}"),
        (None, Some(response_id)) => format!("{OURS}{response_id}_{number}"),
        (None, None) => format!("{OURS}{number}"),
    };
    if signature.is_some() || id.contains('~') {
        id.push('~');
        BASE64URL_NOPAD.encode_append(signature.unwrap_or_default().as_bytes(), &mut id);
    }
    id
}

/// The id for a call that a client sent back with the id `given` and `signature`. An id of ours comes back as it was,
/// with its signature where it had one; others carry something only if there is something to carry.
pub(super) fn of_client(given: &str, signature: Option<&str>) -> String {
    let is_ours = given.starts_with(OURS) || given.starts_with(GIVEN);
    match signature {
        None => given.to_owned(),
        Some(_) if is_ours && given.contains('~') => given.to_owned(),
        Some(signature) if is_ours => {
            let mut id = format!("{given}~");
            BASE64URL_NOPAD.encode_append(signature.as_bytes(), &mut id);
            id
        }
        Some(_) => encode(Some(given), None, 0, signature),
    }
}

/// What `id` carries.
pub(super) fn decode(id: &str) -> Carried<'_> {
    if !id.starts_with(OURS) && !id.starts_with(GIVEN) {
        return Carried::default();
    }
    let (name, signature) = match id.rsplit_once('~') {
        Some((name, encoded)) => (name, decode_signature(encoded)),
        None => (id, None),
    };
    Carried {
        id: name.strip_prefix(GIVEN).filter(|given| !given.is_empty()),
        signature,
    }
}

fn decode_signature(encoded: &str) -> Option<String> {
    let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).ok()?;
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.is_empty())
}
