//! Documents, sound and video in messages, as every dialect needs to know them.

use std::borrow::Cow;

use data_encoding::BASE64;

use crate::chat::ContentPart;

/// Media types by the ending of a file's name or of a URL's path.
const MEDIA_TYPES: &[(&str, &str)] = &[
    ("pdf", "application/pdf"),
    ("json", "application/json"),
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("htm", "text/html"),
    ("xml", "text/xml"),
    ("doc", "application/msword"),
    (
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    ("xls", "application/vnd.ms-excel"),
    (
        "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    ("wav", "audio/wav"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("flac", "audio/flac"),
    ("m4a", "audio/mp4"),
    ("mp4", "video/mp4"),
    ("mov", "video/quicktime"),
    ("webm", "video/webm"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
];

/// The media type of a file of this name, or at this URL; `None`: its ending says nothing.
pub(super) fn type_of_name(name: &str) -> Option<&'static str> {
    let path = name.split(['?', '#']).next().unwrap_or_default();
    let (_, ending) = path.rsplit_once('.')?;
    let is_it = |(known, _): &&(&str, &str)| ending.eq_ignore_ascii_case(known);
    MEDIA_TYPES.iter().find(is_it).map(|(_, kind)| *kind)
}

/// A `data:` URL for the bytes of a file, which some clients give bare. A URL stays what it is.
pub(super) fn url_of_data(data: String, name: Option<&str>) -> String {
    match data.starts_with("data:") || data.starts_with("https://") {
        true => data,
        false => {
            let media_type = name.and_then(type_of_name);
            let media_type = media_type.unwrap_or("application/octet-stream");
            format!("data:{media_type};base64,{data}")
        }
    }
}

/// The part that a client's file is. One that is text and came with the request is given as text, with its name before
/// it, because every model can read that and few providers take it as a file. Images are images however they come.
pub(super) fn part(url: String, media_type: Option<String>, name: Option<String>) -> ContentPart {
    let (kind, text) = match File::of(&url, media_type.as_deref(), name.as_deref()) {
        Ok(file) => (file.kind(), text_of(&file)),
        Err(_) => (Kind::Other, None),
    };
    match (kind, text) {
        (Kind::Text, Some(text)) => ContentPart::Text { text },
        (Kind::Image, _) => ContentPart::ImageUrl { url, detail: None },
        _ => ContentPart::File {
            url,
            media_type,
            name,
        },
    }
}

/// `None`: its bytes are elsewhere, or no text.
fn text_of(file: &File<'_>) -> Option<String> {
    let (Kind::Text, Source::Base64(data)) = (file.kind(), file.source) else {
        return None;
    };
    let text = String::from_utf8(BASE64.decode(data.as_bytes()).ok()?).ok()?;
    Some(match file.name {
        Some(name) => format!("{name}\n\n{text}"),
        None => text,
    })
}

/// Where a file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source<'a> {
    /// Here, in base64.
    Base64(&'a str),
    /// At an `https:` URL.
    Url(&'a str),
}

/// What a file is, as far as providers tell files apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pdf,
    /// Anything that is text: `text/...`, JSON and XML.
    Text,
    Image,
    Sound,
    Video,
    /// All else, and what nobody said.
    Other,
}

/// A [`crate::chat::ContentPart::File`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct File<'a> {
    /// Without parameters; `None`: neither the client nor the file's name says.
    pub(super) media_type: Option<&'a str>,
    /// Its bytes.
    pub(super) source: Source<'a>,
    /// Its name or title.
    pub(super) name: Option<&'a str>,
}

impl<'a> File<'a> {
    /// # Errors
    /// The URL is neither a whole `data:` URL in base64 nor an `https:` URL; the rest of a sentence says so.
    pub(super) fn of(
        url: &'a str,
        media_type: Option<&'a str>,
        name: Option<&'a str>,
    ) -> Result<Self, &'static str> {
        let given = media_type.map(bare).filter(|kind| !kind.is_empty());
        let (source, own) = match url.strip_prefix("data:") {
            Some(rest) => {
                let (head, data) = rest
                    .split_once(',')
                    .and_then(|(head, data)| Some((head.strip_suffix(";base64")?, data)))
                    .filter(|(_, data)| !data.is_empty())
                    .ok_or("must be in base64 where it is a `data:` URL")?;
                let own = Some(bare(head))
                    .filter(|kind| !kind.is_empty() && *kind != "application/octet-stream");
                (Source::Base64(data), own)
            }
            None if url.starts_with("https://") => (Source::Url(url), type_of_name(url)),
            None => return Err("must be a `data:` or `https:` URL"),
        };
        Ok(File {
            media_type: own.or(given).or_else(|| type_of_name(name?)),
            source,
            name: name.filter(|name| !name.trim().is_empty()),
        })
    }

    /// Its name, or one that says what it is.
    pub(super) fn file_name(&self) -> Cow<'a, str> {
        let Some(name) = self.name else {
            let is_it = |(_, kind): &&(&str, &str)| Some(*kind) == self.media_type;
            let ending = MEDIA_TYPES.iter().find(is_it).map(|(ending, _)| *ending);
            return ending.map_or("document".into(), |ending| {
                format!("document.{ending}").into()
            });
        };
        name.into()
    }

    pub(super) fn kind(&self) -> Kind {
        let media_type = self.media_type.unwrap_or_default().to_ascii_lowercase();
        let (family, _) = media_type.split_once('/').unwrap_or_default();
        match (family, media_type.as_str()) {
            (_, "application/pdf") => Kind::Pdf,
            ("text", _) | (_, "application/json" | "application/xml") => Kind::Text,
            ("image", _) => Kind::Image,
            ("audio", _) => Kind::Sound,
            ("video", _) => Kind::Video,
            _ => Kind::Other,
        }
    }
}

/// A media type without its parameters.
fn bare(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or(media_type).trim()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{File, Kind, Source};

    #[test]
    fn a_files_type_is_what_its_url_says_then_the_client_then_its_name() {
        for (url, given, name, media_type, kind) in [
            (
                "data:application/pdf;base64,QQ==",
                Some("text/plain"),
                None,
                Some("application/pdf"),
                Kind::Pdf,
            ),
            (
                "data:text/csv;charset=utf-8;base64,QQ==",
                None,
                None,
                Some("text/csv"),
                Kind::Text,
            ),
            (
                "data:application/octet-stream;base64,QQ==",
                None,
                Some("a.PDF"),
                Some("application/pdf"),
                Kind::Pdf,
            ),
            (
                "data:;base64,QQ==",
                Some("audio/wav"),
                None,
                Some("audio/wav"),
                Kind::Sound,
            ),
            (
                "https://example.org/a.mp4?b=c.pdf",
                None,
                None,
                Some("video/mp4"),
                Kind::Video,
            ),
            (
                "https://example.org/a",
                Some("application/pdf"),
                None,
                Some("application/pdf"),
                Kind::Pdf,
            ),
            ("https://example.org/a", None, None, None, Kind::Other),
        ] {
            let file = File::of(url, given, name).unwrap();
            assert_eq!((file.media_type, file.kind()), (media_type, kind), "{url}");
        }
        let file = File::of("data:text/plain;base64,QQ==", None, Some(" ")).unwrap();
        assert_eq!((file.source, file.name), (Source::Base64("QQ=="), None));
    }

    #[test]
    fn what_is_no_whole_url_is_refused() {
        for url in [
            "data:text/plain,a",
            "data:text/plain;base64,",
            "http://example.org/a",
            "a.pdf",
            "",
        ] {
            assert!(File::of(url, None, None).is_err(), "{url}");
        }
    }
}
