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
    let boundary = parameters(content_type)
        .find(|(name, _)| name.eq_ignore_ascii_case("boundary"))
        .map(|(_, value)| value)
        .filter(|boundary| (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()))
        .ok_or_else(|| malformed("The form's `Content-Type` has no usable `boundary`."))?;
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
    let broken = || malformed("The request body is not a valid multipart form.");
    let border = format!("\r\n--{boundary}").into_bytes();
    let mut parts = Vec::new();
    // The first border may stand at the very beginning, where no line has ended yet.
    let mut at = if body.starts_with(&border[2..]) {
        border.len() - 2
    } else {
        find(body, &border, 0).ok_or_else(broken)? + border.len()
    };
    while !body[at..].starts_with(b"--") {
        let padding = body[at..]
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        at += padding;
        if !body[at..].starts_with(b"\r\n") || parts.len() == PARTS_MAX {
            return Err(broken());
        }
        // From the line end on, because a part without a head begins with an empty line.
        let head_end = find(
            &body[..body.len().min(at + HEAD_BYTES_MAX)],
            b"\r\n\r\n",
            at,
        )
        .ok_or_else(broken)?;
        let content = head_end + 4;
        // The line end before a border is the border's, also where it ends the head of a part without content.
        let end = find(body, &border, head_end + 2).ok_or_else(broken)?;
        if end < content {
            return Err(broken());
        }
        parts.push(Part {
            head: at..head_end,
            content: content..end,
        });
        at = end + border.len();
    }
    Ok(parts)
}

/// Whether the head of a part gives it this name.
fn is_named(head: &[u8], wanted: &str) -> Result<bool, ApiError> {
    let Ok(head) = std::str::from_utf8(head) else {
        return Err(malformed("A part of the form has a head that is not text."));
    };
    for line in head.split("\r\n") {
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

fn malformed(message: &str) -> ApiError {
    ApiError::new(ErrorKind::InvalidParameter, message)
}
