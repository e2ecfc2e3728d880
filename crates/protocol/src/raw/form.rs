//! Where a form (`multipart/form-data`, RFC 7578) names the model.
//!
//! Read strictly: what another reader might take for a border of parts or for a name is refused, so that an upstream
//! can't find another model in a form than was found here.

use std::ops::Range;

use crate::error::{ApiError, ErrorKind};

const MODEL: &str = "model";
/// Longest boundary that RFC 2046 allows, bytes.
const BOUNDARY_BYTES_MAX: usize = 70;
/// Most parts of a form.
const PARTS_MAX: usize = 1_000;
/// Longest head of a part, bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest name of a model, bytes.
const MODEL_BYTES_MAX: usize = 512;

/// Whether a media type says that the body is a form.
pub(super) fn is_form(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type
        .trim()
        .eq_ignore_ascii_case("multipart/form-data")
}

/// The model, and its place.
pub(super) fn model(
    content_type: &str,
    body: &[u8],
) -> Result<(String, Vec<Range<usize>>), ApiError> {
    let mut boundaries = parameters(content_type)
        .filter(|(name, _)| name.eq_ignore_ascii_case("boundary"))
        .map(|(_, value)| value);
    let boundary = match (boundaries.next(), boundaries.next()) {
        (Some(boundary), None)
            if (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()) && !boundary.contains('\\') =>
        {
            boundary
        }
        _ => {
            return Err(malformed(
                "The form's `Content-Type` has no usable `boundary`.",
            ));
        }
    };
    let mut found: Option<Range<usize>> = None;
    for part in parts(body, boundary)? {
        if !is_named(&body[part.head], MODEL)? {
            continue;
        }
        if found.replace(part.content).is_some() {
            return Err(ApiError::invalid(MODEL, "is there twice"));
        }
    }
    let place = found
        .filter(|place| !place.is_empty())
        .ok_or_else(|| ApiError::missing(MODEL))?;
    let name = std::str::from_utf8(&body[place.clone()])
        .ok()
        .filter(|name| name.len() <= MODEL_BYTES_MAX)
        .ok_or_else(|| ApiError::invalid(MODEL, "must be the name of a model"))?;
    Ok((name.to_owned(), vec![place]))
}

/// Places in a body.
struct Part {
    head: Range<usize>,
    content: Range<usize>,
}

/// Every part. What stands before the first border and after the last one belongs to none.
fn parts(body: &[u8], boundary: &str) -> Result<Vec<Part>, ApiError> {
    let border = format!("--{boundary}").into_bytes();
    let mut parts = Vec::new();
    let mut at = next_border(body, &border, 0)?;
    loop {
        at += border.len();
        if body[at..].starts_with(b"--") {
            return Ok(parts);
        }
        let padding = body[at..]
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        at += padding;
        if !body[at..].starts_with(b"\r\n") || parts.len() == PARTS_MAX {
            return Err(broken());
        }
        // From the line end on, because a part without a head begins with an empty line.
        let head_bytes = &body[..body.len().min(at + HEAD_BYTES_MAX)];
        let head_end = find(head_bytes, b"\r\n\r\n", at).ok_or_else(broken)?;
        let content = head_end + 4;
        // From there on, too: a border in the head would end the part before it has begun.
        let next = next_border(body, &border, at)?;
        // The line end before a border is the border's.
        if next < content + 2 {
            return Err(broken());
        }
        parts.push(Part {
            head: at..head_end,
            content: content..next - 2,
        });
        at = next;
    }
}

/// Where the next border begins. It stands at the beginning of a line; after any other line end than the right one
/// readers disagree about it.
fn next_border(body: &[u8], border: &[u8], from: usize) -> Result<usize, ApiError> {
    let mut at = from;
    loop {
        at = find(body, border, at).ok_or_else(broken)?;
        match body[..at] {
            [] | [.., b'\r', b'\n'] => return Ok(at),
            [.., b'\r' | b'\n'] => return Err(broken()),
            _ => at += 1,
        }
    }
}

/// Whether the head of a part gives it this name.
fn is_named(head: &[u8], wanted: &str) -> Result<bool, ApiError> {
    // A file's name may be in whatever encoding.
    let head = String::from_utf8_lossy(head);
    for line in head.split("\r\n") {
        // Some readers would go on in such a line, or begin a new one in it.
        if line.starts_with([' ', '\t']) || line.contains(['\r', '\n']) {
            return Err(broken());
        }
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        if !field.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        // Readers disagree about where such a value ends.
        if value.contains("\\\"") {
            return Err(malformed(
                "A part of the form has a name with a quotation mark in it.",
            ));
        }
        for (parameter, value) in parameters(value) {
            let is_name = parameter.eq_ignore_ascii_case("name");
            if parameter.eq_ignore_ascii_case("name*") || (is_name && value.contains('\\')) {
                return Err(malformed(
                    "A part of the form has a name that is written in a way forms do not allow.",
                ));
            }
            if is_name && value == wanted {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// `; name=value` and `; name="value"` after the first word of a header's value.
fn parameters(value: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = value.split_once(';').map_or("", |(_, rest)| rest);
    std::iter::from_fn(move || {
        let (name, after) = rest.split_once('=')?;
        // A word without a value is of no use to anybody.
        let name = name.rsplit(';').next().unwrap_or_default().trim();
        let after = after.trim_start();
        let value = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = quoted.split_once('"').unwrap_or((quoted, ""));
                rest = after;
                value
            }
            None => {
                let (value, after) = after.split_once(';').unwrap_or((after, ""));
                rest = after;
                value.trim_end()
            }
        };
        Some((name, value))
    })
}

/// The first place of `needle` from `from` on.
fn find(body: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += body.get(at..)?.iter().position(|byte| *byte == needle[0])?;
        if body[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}

fn broken() -> ApiError {
    malformed("The request body is not a valid multipart form.")
}

fn malformed(message: &str) -> ApiError {
    ApiError::new(ErrorKind::InvalidParameter, message)
}
