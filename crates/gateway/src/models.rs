//! Model files: where they are kept, how they get there, and how they are checked before anything loads them.
//!
//! A pulled model is a folder `<models dir>/<name>/` with `model.gguf` and `manifest.json`. It appears there whole or
//! not at all: pulls work in a folder of their own and end in one rename. Beside it, `<name>.lock` is held shared by
//! whoever uses the model and exclusively by whoever replaces or removes it.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

mod download;
pub mod gguf;
mod pull;
mod pypi;
mod source;

pub use pull::{Progress, PullRequest, Pulled, Silent};
pub use source::Source;

/// The model that is used when nothing else is said, as it is called in the store and by clients.
pub const DEFAULT_MODEL: &str = "smollm2-135m-instruct";

/// What the default model is also called.
pub const DEFAULT_ALIAS: &str = "default";

const MODEL_FILE: &str = "model.gguf";
const MANIFEST_FILE: &str = "manifest.json";

/// The name of a pulled model: `[a-z0-9][a-z0-9._-]*`, at most 100 characters, so that it is a safe folder name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelName(String);

impl ModelName {
    /// Checks a name; `default` stands for the default model.
    ///
    /// # Errors
    /// A sentence that says what a name may look like.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == DEFAULT_ALIAS {
            return Ok(Self::default());
        }
        let starts_well =
            text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
        let sound = text.len() <= 100
            && text.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
            });
        if starts_well && sound {
            Ok(ModelName(text.to_owned()))
        } else {
            Err(format!(
                "`{text}` is no model name: use lower-case letters, digits, `.`, `_` and `-`, a letter or digit first"
            ))
        }
    }

    /// A name made from a file's: `SmolLM2 (Q8).gguf` becomes `smollm2-q8`.
    pub fn from_file_name(file: &str) -> Option<Self> {
        let stem = file
            .strip_suffix(".gguf")
            .unwrap_or(file)
            .to_ascii_lowercase();
        let mut name = String::new();
        for character in stem.chars() {
            if character.is_ascii_alphanumeric() || matches!(character, '.' | '_') {
                name.push(character);
            } else if !name.ends_with('-') {
                name.push('-');
            }
        }
        Self::parse(name.trim_matches(['-', '.', '_'])).ok()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the model that comes with Holdfast.
    pub fn is_default(&self) -> bool {
        self.0 == DEFAULT_MODEL
    }
}

impl Default for ModelName {
    fn default() -> Self {
        ModelName(DEFAULT_MODEL.to_owned())
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an engine's config names: a pulled model or a file of the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelReference {
    /// A folder of the model store.
    Pulled(ModelName),
    /// A GGUF file anywhere.
    File(PathBuf),
}

impl ModelReference {
    /// Whether it is the model that comes with Holdfast.
    pub fn is_default(&self) -> bool {
        matches!(self, ModelReference::Pulled(name) if name.is_default())
    }

    /// A text with a slash or ending in `.gguf` is a path (relative to `folder`), any other a name.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the name.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        if text.contains('/') || text.ends_with(".gguf") {
            return Ok(ModelReference::File(folder.join(text)));
        }
        ModelName::parse(text).map(ModelReference::Pulled)
    }

    /// What clients call the model when the config does not name it.
    pub fn served_name(&self) -> String {
        match self {
            ModelReference::Pulled(name) => name.to_string(),
            ModelReference::File(path) => path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(ModelName::from_file_name)
                .map_or_else(|| "model".to_owned(), |name| name.to_string()),
        }
    }
}

impl Default for ModelReference {
    fn default() -> Self {
        ModelReference::Pulled(ModelName::default())
    }
}

/// What is known of a pulled model; `manifest.json` beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Where it came from, in the form `models pull` takes.
    pub source: String,
    /// SHA-256 of the file as it came, hexadecimal.
    pub source_sha256: String,
    /// SHA-256 of `model.gguf`, hexadecimal; differs from the source's when the weights were converted.
    pub sha256: String,
    /// Size of `model.gguf`, bytes.
    pub bytes: u64,
    /// When, RFC 3339.
    pub pulled_at: String,
    /// Weight format it was converted to, or `as shipped`.
    pub quantization: String,
}

/// What went wrong with a model file.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The model is not there.
    #[error(
        "the model `{0}` is not here: `holdfast models list` shows what is, `holdfast models pull` fetches more"
    )]
    Missing(ModelName),
    /// Somebody uses, pulls or removes it.
    #[error("the model `{name}` is in use: {by}")]
    Busy {
        /// Which.
        name: ModelName,
        /// By whom, and what to do.
        by: &'static str,
    },
    /// The file is not what the manifest or the caller says.
    #[error(
        "{what} has sha256 {found}, but {expected} was expected: it is damaged or not the file that was meant"
    )]
    Checksum {
        /// The file, in words.
        what: String,
        /// Hexadecimal.
        found: String,
        /// Hexadecimal.
        expected: String,
    },
    /// Not a GGUF file that could be loaded.
    #[error("{what} is not a usable GGUF file: {problem}")]
    NotGguf {
        /// The file, in words.
        what: String,
        /// Why.
        problem: String,
    },
    /// The manifest can't be read.
    #[error(
        "the folder of model `{name}` is damaged ({problem}): remove it with `holdfast models remove {name}` and pull again"
    )]
    Damaged {
        /// Which.
        name: ModelName,
        /// Why.
        problem: String,
    },
    /// The source is malformed or needs something.
    #[error("{0}")]
    Source(String),
    /// A download failed.
    #[error("{0}")]
    Download(String),
    /// The weights could not be converted.
    #[error("the weights could not be converted: {0}")]
    Convert(String),
    /// The disk.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
}

impl ModelError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> ModelError {
        let what = what.into();
        move |error| ModelError::Io { what, error }
    }
}

/// A model that has been checked and is protected from removal as long as this lives.
#[derive(Debug)]
pub struct OpenModel {
    /// The file to load.
    pub path: PathBuf,
    /// For a pulled model.
    pub manifest: Option<Manifest>,
    /// Metadata from the file.
    pub info: gguf::GgufInfo,
    _lock: Option<File>,
}

/// A pulled model's name and its manifest, or what is wrong with it.
pub type ListedModel = (ModelName, Result<Manifest, ModelError>);

/// A folder of pulled models.
#[derive(Debug, Clone)]
pub struct ModelStore {
    folder: PathBuf,
}

impl ModelStore {
    /// The store in this folder, which is made when something is pulled.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        ModelStore {
            folder: folder.into(),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Pulled models by name, each with its manifest or what is wrong with it. Does not read the models themselves.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn list(&self) -> Result<Vec<ListedModel>, ModelError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(ModelError::io(format!(
                    "can't read {}",
                    self.folder.display()
                ))(error));
            }
        };
        let mut names: Vec<ModelName> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| ModelName::parse(entry.file_name().to_str()?).ok())
            .collect();
        names.sort();
        Ok(names
            .into_iter()
            .map(|name| {
                let manifest = self.manifest(&name);
                (name, manifest)
            })
            .collect())
    }

    /// Whether the model has been pulled. Says nothing of its soundness.
    pub fn contains(&self, name: &ModelName) -> bool {
        self.model_folder(name).join(MANIFEST_FILE).is_file()
    }

    /// Checks a model by its SHA-256 and its header and keeps it from being removed while the result lives.
    ///
    /// Reads the whole file: about a tenth of a second for the default model.
    ///
    /// # Errors
    /// `Missing`, `Busy` while it is being replaced, `Checksum`, `NotGguf`, `Damaged`.
    pub fn open(&self, reference: &ModelReference) -> Result<OpenModel, ModelError> {
        let name = match reference {
            ModelReference::Pulled(name) => name,
            ModelReference::File(path) => {
                return Ok(OpenModel {
                    info: check_gguf(path, &format!("the model file {}", path.display()))?,
                    path: path.clone(),
                    manifest: None,
                    _lock: None,
                });
            }
        };
        if !self.contains(name) {
            return Err(ModelError::Missing(name.clone()));
        }
        let lock = self.lock_file(name)?;
        lock.try_lock_shared().map_err(|error| match error {
            TryLockError::WouldBlock => ModelError::Busy {
                name: name.clone(),
                by: "it is being pulled or removed. Wait for that to end",
            },
            TryLockError::Error(error) => ModelError::io("can't lock the model")(error),
        })?;
        let manifest = self.manifest(name)?;
        let path = self.model_folder(name).join(MODEL_FILE);
        let what = format!("the file of model `{name}`");
        let found = sha256_of(&path).map_err(ModelError::io(format!("can't read {what}")))?;
        if found != manifest.sha256 {
            return Err(ModelError::Checksum {
                what,
                found,
                expected: manifest.sha256,
            });
        }
        Ok(OpenModel {
            info: check_gguf(&path, &what)?,
            path,
            manifest: Some(manifest),
            _lock: Some(lock),
        })
    }

    /// Waits until nobody pulls or removes the model. Blocks the thread.
    ///
    /// # Errors
    /// The lock file can't be opened or locked.
    pub fn wait_until_free(&self, name: &ModelName) -> Result<(), ModelError> {
        self.lock_file(name)?
            .lock_shared()
            .map_err(ModelError::io("can't lock the model"))
    }

    /// Removes a pulled model.
    ///
    /// # Errors
    /// `Missing`, or `Busy` while a server runs it.
    pub fn remove(&self, name: &ModelName) -> Result<(), ModelError> {
        let folder = self.model_folder(name);
        if !folder.exists() {
            return Err(ModelError::Missing(name.clone()));
        }
        let _lock = self.lock_exclusively(name)?;
        std::fs::remove_dir_all(&folder)
            .map_err(ModelError::io(format!("can't remove {}", folder.display())))?;
        // The lock file stays: whoever opened it a moment ago would else hold a lock that nobody else can see.
        Ok(())
    }

    fn model_folder(&self, name: &ModelName) -> PathBuf {
        self.folder.join(name.as_str())
    }

    fn manifest(&self, name: &ModelName) -> Result<Manifest, ModelError> {
        let damaged = |problem: String| ModelError::Damaged {
            name: name.clone(),
            problem,
        };
        let text = std::fs::read(self.model_folder(name).join(MANIFEST_FILE))
            .map_err(|error| damaged(format!("its manifest can't be read: {error}")))?;
        serde_json::from_slice(&text)
            .map_err(|error| damaged(format!("its manifest is not valid: {error}")))
    }

    fn lock_file(&self, name: &ModelName) -> Result<File, ModelError> {
        let path = self.folder.join(format!("{name}.lock"));
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(ModelError::io(format!("can't open {}", path.display())))
    }

    fn lock_exclusively(&self, name: &ModelName) -> Result<File, ModelError> {
        let lock = self.lock_file(name)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(ModelError::Busy {
                name: name.clone(),
                by: "a server runs it, or another command pulls it. Stop that first",
            }),
            Err(TryLockError::Error(error)) => Err(ModelError::io("can't lock the model")(error)),
        }
    }
}

/// SHA-256 of a file, hexadecimal.
fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(data_encoding::HEXLOWER.encode(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

fn check_gguf(path: &Path, what: &str) -> Result<gguf::GgufInfo, ModelError> {
    let file = File::open(path).map_err(ModelError::io(format!("can't open {what}")))?;
    gguf::read(file).map_err(|problem| ModelError::NotGguf {
        what: what.to_owned(),
        problem,
    })
}

#[cfg(test)]
pub(crate) mod tests;
