//! A form (`multipart/form-data`) taken apart.

use crate::RawRequest;

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// For files.
    pub file_name: Option<String>,
    /// What it holds.
    pub content: Vec<u8>,
}

impl RawRequest {
    /// The parts of the form that the request is; `None` when it is none.
    pub fn form(&self) -> Option<Vec<Field>> {
        let boundary = self
            .header("content-type")?
            .strip_prefix("multipart/form-data;")?
            .split_once("boundary=")?
            .1
            .trim_matches('"');
        // Bytes as characters of the same number, so that text can be searched and nothing is lost.
        let body: String = self.body.iter().map(|byte| char::from(*byte)).collect();
        let body = format!("\r\n{body}");
        let mut fields = Vec::new();
        for part in body.split(&format!("\r\n--{boundary}")).skip(1) {
            if part.starts_with("--") {
                return Some(fields);
            }
            let part = part.trim_start_matches([' ', '\t']).strip_prefix("\r\n")?;
            let (head, content) = part.split_once("\r\n\r\n")?;
            let value = |key: &str| {
                head.split([';', '\r', '\n']).find_map(|pair| {
                    let (name, value) = pair.split_once('=')?;
                    (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
                })
            };
            fields.push(Field {
                name: value("name")?,
                file_name: value("filename"),
                content: content
                    .chars()
                    .map(|character| u8::try_from(character).unwrap())
                    .collect(),
            });
        }
        // The last border is missing.
        None
    }
}
