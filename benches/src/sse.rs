//! Server-sent events from an HTTP answer, as far as JSON streams use them.

use crate::Result;

/// The events of an answer.
#[derive(Debug)]
pub struct Events {
    response: reqwest::Response,
    lines: Vec<u8>,
}

impl Events {
    /// Of an answer that has begun.
    pub fn new(response: reqwest::Response) -> Self {
        Events {
            response,
            lines: Vec::new(),
        }
    }

    /// The next event's data; `None` at the end.
    ///
    /// # Errors
    /// The connection breaks, or the text is not UTF-8.
    pub async fn next(&mut self) -> Result<Option<String>> {
        loop {
            while let Some(line) = take_line(&mut self.lines)? {
                if let Some(data) = line.strip_prefix("data:") {
                    return Ok(Some(data.trim().to_owned()));
                }
            }
            match self.response.chunk().await? {
                Some(bytes) => self.lines.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

fn take_line(buffer: &mut Vec<u8>) -> Result<Option<String>> {
    let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let line: Vec<u8> = buffer.drain(..=end).collect();
    Ok(Some(String::from_utf8(line)?.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_only_when_it_is_whole() -> Result<()> {
        let mut buffer = b"data: {}\r\ndata: [DO".to_vec();
        assert_eq!(take_line(&mut buffer)?.as_deref(), Some("data: {}"));
        assert_eq!(take_line(&mut buffer)?, None);
        buffer.extend_from_slice(b"NE]\n");
        assert_eq!(take_line(&mut buffer)?.as_deref(), Some("data: [DONE]"));
        Ok(())
    }
}
