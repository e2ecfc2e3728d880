//! Reads the metadata at the start of a GGUF file, so that a file that can't be one is refused in words before the
//! engine sees it. Does not look at the weights.

use std::fs::File;
use std::io::{self, BufReader, Read};

/// Longest accepted key or short text, bytes. Longer texts (chat templates) are skipped, not kept.
const TEXT_BYTES_MAX: u64 = 1 << 16;

/// Most entries and tensors of a sound file; more means that the counts are garbage.
const ENTRIES_MAX: u64 = 1 << 20;

/// What a GGUF file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GgufInfo {
    /// Version of the format.
    pub version: u32,
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`.
    pub name: Option<String>,
    /// Tokens it was trained for.
    pub context_length: Option<u64>,
    /// Whether the file has a chat template.
    pub has_chat_template: bool,
    /// Bytes of KV state for each token in 16-bit floats; `None` where the file does not tell.
    pub kv_bytes_per_token: Option<u64>,
    /// Size of the file, bytes.
    pub bytes: u64,
}

/// Reads and checks the metadata.
///
/// # Errors
/// A clause that says what is wrong: no GGUF at all, cut off, counts that can't be.
pub fn read(file: File) -> Result<GgufInfo, String> {
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let mut reader = Reader {
        input: BufReader::with_capacity(1 << 16, file),
        left: bytes,
    };
    let mut info = reader.info()?;
    info.bytes = bytes;
    Ok(info)
}

struct Reader {
    input: BufReader<File>,
    /// Bytes to the end of the file: no length in it may be larger.
    left: u64,
}

#[derive(Default)]
struct Sizes {
    layers: Option<u64>,
    embedding: Option<u64>,
    heads: Option<u64>,
    kv_heads: Option<u64>,
    key_length: Option<u64>,
    value_length: Option<u64>,
}

enum Value {
    Number(u64),
    Text(String),
    Other,
}

impl Reader {
    fn info(&mut self) -> Result<GgufInfo, String> {
        if self.left < 4 || &self.bytes::<4>()? != b"GGUF" {
            return Err("it does not begin with the letters GGUF".into());
        }
        let version = self.u32()?;
        // Version 1 had 32-bit counts; a big-endian file shows its version in the upper bytes.
        if !(2..=3).contains(&version) {
            return Err(format!(
                "its format version is {version}, and only 2 and 3 can be read"
            ));
        }
        let tensors = self.u64()?;
        let entries = self.u64()?;
        if tensors == 0 || tensors > ENTRIES_MAX || entries > ENTRIES_MAX {
            return Err(format!(
                "its header promises {tensors} tensors and {entries} entries"
            ));
        }
        let mut info = GgufInfo {
            version,
            ..GgufInfo::default()
        };
        let mut sizes = Sizes::default();
        for _ in 0..entries {
            let key = self.text()?.ok_or("a key is longer than any real one")?;
            let kind = self.u32()?;
            let value = self.value(kind, 0)?;
            take(&mut info, &mut sizes, &key, value);
        }
        if info.architecture.is_empty() {
            return Err("it names no architecture".into());
        }
        info.kv_bytes_per_token = sizes.kv_bytes_per_token();
        Ok(info)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.left = self.left.checked_sub(N as u64).ok_or_else(cut_off)?;
        self.input
            .read_exact(&mut bytes)
            .map_err(|error| broken(&error))?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn skip(&mut self, count: u64) -> Result<(), String> {
        self.left = self.left.checked_sub(count).ok_or_else(cut_off)?;
        let count = i64::try_from(count).map_err(|_| cut_off())?;
        self.input
            .seek_relative(count)
            .map_err(|error| broken(&error))
    }

    /// `None` for a text that is too long to keep.
    fn text(&mut self) -> Result<Option<String>, String> {
        let length = self.u64()?;
        if length > TEXT_BYTES_MAX {
            self.skip(length)?;
            return Ok(None);
        }
        self.left = self.left.checked_sub(length).ok_or_else(cut_off)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| cut_off())?];
        self.input
            .read_exact(&mut bytes)
            .map_err(|error| broken(&error))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, String> {
        Ok(match kind {
            0 | 1 | 7 => {
                self.skip(1)?;
                Value::Other
            }
            2 | 3 => {
                self.skip(2)?;
                Value::Other
            }
            4 => Value::Number(u64::from(self.u32()?)),
            5 => Value::Number(u64::try_from(self.u32()?.cast_signed()).unwrap_or(0)),
            6 => {
                self.skip(4)?;
                Value::Other
            }
            8 => self.text()?.map_or(Value::Other, Value::Text),
            9 => {
                self.array(depth)?;
                Value::Other
            }
            10 | 11 => Value::Number(self.u64()?),
            12 => {
                self.skip(8)?;
                Value::Other
            }
            unknown => return Err(format!("it has a value of unknown type {unknown}")),
        })
    }

    fn array(&mut self, depth: u32) -> Result<(), String> {
        // Real files nest once; a limit keeps a hostile one from exhausting the stack.
        if depth > 4 {
            return Err("its lists are nested too deeply".into());
        }
        let kind = self.u32()?;
        let count = self.u64()?;
        let width: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            _ => {
                for _ in 0..count {
                    self.value(kind, depth + 1)?;
                }
                return Ok(());
            }
        };
        self.skip(count.checked_mul(width).ok_or_else(cut_off)?)
    }
}

fn take(info: &mut GgufInfo, sizes: &mut Sizes, key: &str, value: Value) {
    match (key, value) {
        ("general.architecture", Value::Text(text)) => info.architecture = text,
        ("general.name", Value::Text(text)) => info.name = Some(text),
        ("tokenizer.chat_template", _) => info.has_chat_template = true,
        (key, Value::Number(number)) => {
            let Some((_, key)) = key.split_once('.') else {
                return;
            };
            match key {
                "context_length" => info.context_length = Some(number),
                "block_count" => sizes.layers = Some(number),
                "embedding_length" => sizes.embedding = Some(number),
                "attention.head_count" => sizes.heads = Some(number),
                "attention.head_count_kv" => sizes.kv_heads = Some(number),
                "attention.key_length" => sizes.key_length = Some(number),
                "attention.value_length" => sizes.value_length = Some(number),
                _ => {}
            }
        }
        _ => {}
    }
}

impl Sizes {
    fn kv_bytes_per_token(&self) -> Option<u64> {
        let heads = self.heads.filter(|heads| *heads > 0)?;
        let head = self.embedding? / heads;
        let key = self.key_length.unwrap_or(head);
        let value = self.value_length.unwrap_or(head);
        let width = key
            .checked_add(value)?
            .checked_mul(self.kv_heads.unwrap_or(heads))?;
        width.checked_mul(self.layers?)?.checked_mul(2)
    }
}

fn cut_off() -> String {
    "it is cut off, or its header is damaged".into()
}

fn broken(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        cut_off()
    } else {
        format!("it can't be read: {error}")
    }
}
