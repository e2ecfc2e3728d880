//! Pictures, documents, sound and films: formats, sources and, for documents, names.

use serde_json::{Map, Value};

use super::prompt::{Invalid, no_extra, union};

/// Most documents in one request.
const DOCUMENTS_MAX: usize = 5;
/// Longest name of a document, characters.
const NAME_CHARS_MAX: usize = 200;

/// A kind of media.
struct Kind {
    /// The member of the block's union.
    name: &'static str,
    /// Fields beside format and source.
    others: &'static [&'static str],
    formats: &'static [&'static str],
    /// The members of its source.
    sources: &'static [&'static str],
}

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    Kind {
        name: "image",
        others: &[],
        formats: &["png", "jpeg", "gif", "webp"],
        sources: &["bytes", "s3Location"],
    },
    Kind {
        name: "document",
        others: &["name", "context", "citations"],
        formats: &["pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"],
        sources: &["bytes", "s3Location", "text", "content"],
    },
    Kind {
        name: "audio",
        others: &[],
        formats: &[
            "mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "mka", "x-aac", "m4a", "mpeg", "mpga", "pcm",
            "webm",
        ],
        sources: &["bytes", "s3Location"],
    },
    Kind {
        name: "video",
        others: &[],
        formats: &["mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv", "three_gp"],
        sources: &["bytes", "s3Location"],
    },
];

fn kind_of(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Whether blocks of that name are media.
pub(super) fn is_media(name: &str) -> bool {
    kind_of(name).is_some()
}

/// Checks one such block.
pub(super) fn check(name: &str, block: &Value, path: &str) -> Invalid<()> {
    let Some(kind) = kind_of(name) else {
        return Ok(());
    };
    let path = format!("{path}.{name}");
    let fields = block
        .as_object()
        .ok_or(format!("The value at {path} must be an object."))?;
    let allowed: Vec<&str> = kind
        .others
        .iter()
        .copied()
        .chain(["format", "source"])
        .collect();
    no_extra(fields, &allowed)?;
    let format = fields
        .get("format")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !kind.formats.contains(&format) {
        return Err(format!(
            "Value '{format}' at '{path}.format' failed to satisfy constraint: Member must satisfy enum value set: [{}]",
            kind.formats.join(", ")
        ));
    }
    if name == "document" {
        check_name(fields, &path)?;
    }
    let source = fields.get("source").unwrap_or(&Value::Null);
    let (member, content) = union(source, kind.sources, &format!("{path}.source"))?;
    let is_bytes =
        |text: &str| !text.is_empty() && data_encoding::BASE64.decode(text.as_bytes()).is_ok();
    if member == "bytes" && !content.as_str().is_some_and(is_bytes) {
        return Err(format!(
            "The value at {path}.source.bytes must be bytes in base64."
        ));
    }
    Ok(())
}

fn check_name(fields: &Map<String, Value>, path: &str) -> Invalid<()> {
    let name = fields
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let constraint = match name.chars().count() {
        0 => "greater than or equal to 1",
        1..=NAME_CHARS_MAX => "",
        _ => "less than or equal to 200",
    };
    if !constraint.is_empty() {
        return Err(format!(
            "Value at '{path}.name' failed to satisfy constraint: Member must have length {constraint}"
        ));
    }
    // The service takes underscores too, but doesn't say so. What it says is the safer rule to test against.
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || " -()[]".contains(letter);
    if name.chars().all(is_allowed) && !name.contains("  ") {
        return Ok(());
    }
    Err(
        "The document file name can only contain alphanumeric characters, whitespace characters, hyphens, parentheses, \
         and square brackets. The name can't contain more than one consecutive whitespace character. Check that the \
         file name conforms to these restrictions and retry your request."
            .into(),
    )
}

/// The rules for documents that go beyond one block: who may send them, with what, and how many.
pub(super) fn documents(messages: &[Value]) -> Invalid<()> {
    let mut names: Vec<&str> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let content = message["content"].as_array().map_or(&[][..], Vec::as_slice);
        let own: Vec<&Value> = content
            .iter()
            .filter_map(|block| block.get("document"))
            .collect();
        if message["role"] == "assistant" && !own.is_empty() {
            return Err(format!(
                "The role of messages.{index} does not match its document blocks. Documents can only be sent by the user."
            ));
        }
        if !own.is_empty() && !content.iter().any(|block| block.get("text").is_some()) {
            return Err(format!(
                "A message with a document must also have a text block. Add a text block to messages.{index}.content and \
                 try again."
            ));
        }
        let within = content
            .iter()
            .filter_map(|block| block["toolResult"]["content"].as_array())
            .flatten()
            .filter_map(|block| block.get("document"));
        for document in own.into_iter().chain(within) {
            let name = document["name"].as_str().unwrap_or_default();
            if names.contains(&name) {
                return Err(
                    "Messages can't contain duplicate document names. Rename the document and retry your request.".into(),
                );
            }
            names.push(name);
        }
    }
    if names.len() > DOCUMENTS_MAX {
        return Err(format!(
            "The request has {} documents. Send at most {DOCUMENTS_MAX} documents and try again.",
            names.len()
        ));
    }
    Ok(())
}
