//! The folder of everything that must survive, owned by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::RngExt;

use crate::keys::Secret;

use super::ServeError;

const LOCK_FILE: &str = "lock";
const ADDRESS_FILE: &str = "address";
const FIRST_KEY_FILE: &str = "first-key";
const SALT_FILE: &str = "salt";
const SALT_BYTES: usize = 32;

/// Where things are in a data directory.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

/// Proof that this process owns the data directory; ends with it.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

impl DataDir {
    /// The data directory at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DataDir { path: path.into() }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.path.join("holdfast.db")
    }

    /// Saved KV state of an engine.
    pub fn engine_state(&self, engine: &str) -> PathBuf {
        self.path.join("state").join(engine)
    }

    /// Where the first key is kept for the command line.
    pub fn first_key_file(&self) -> PathBuf {
        self.path.join(FIRST_KEY_FILE)
    }

    /// Makes the folder, readable by its owner only, unless it is there.
    ///
    /// # Errors
    /// It can't be made.
    pub fn create(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
    }

    /// Makes this process the owner. The system ends the ownership with the process, however that ends.
    ///
    /// # Errors
    /// Another process owns it, or it can't be made or written.
    pub fn lock(&self) -> Result<DataDirLock, ServeError> {
        let shown = self.path.display();
        self.create().map_err(|error| {
            ServeError::new(format!("the data directory {shown} can't be made: {error}"))
                .help("name another with --data-dir")
        })?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join(LOCK_FILE))
            .map_err(|error| {
                ServeError::new(format!(
                    "the data directory {shown} can't be written: {error}"
                ))
                .help("check who owns it, or name another with --data-dir")
            })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = file.read_to_string(&mut owner);
                let owner = owner.trim();
                let who = if owner.is_empty() {
                    String::new()
                } else {
                    format!(" (process {owner})")
                };
                return Err(ServeError::new(format!(
                    "another holdfast{who} uses the data directory {shown}"
                ))
                .help("stop it first, or give this one its own folder with --data-dir"));
            }
            Err(TryLockError::Error(error)) => {
                return Err(ServeError::new(format!(
                    "the data directory {shown} can't be locked: {error}"
                ))
                .help("network file systems often can't: name a local folder with --data-dir"));
            }
        }
        // Only told to people; the lock itself is the system's.
        let _ = file
            .set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id()));
        Ok(DataDirLock { _file: file })
    }

    /// Whether some process owns it now.
    pub fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.path.join(LOCK_FILE)) else {
            return false;
        };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// The URL of the server that owns it, as it wrote it down.
    pub fn address(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.path.join(ADDRESS_FILE)).ok()?;
        Some(text.trim().to_owned()).filter(|url| !url.is_empty())
    }

    /// Writes down where the server listens.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_address(&self, url: &str) -> io::Result<()> {
        let part = self.path.join("address.new");
        std::fs::write(&part, format!("{url}\n"))?;
        std::fs::rename(part, self.path.join(ADDRESS_FILE))
    }

    /// Forgets it.
    pub fn remove_address(&self) {
        let _ = std::fs::remove_file(self.path.join(ADDRESS_FILE));
    }

    /// The key of the first start, unless somebody deleted the file.
    pub fn first_key(&self) -> Option<Secret> {
        let text = std::fs::read_to_string(self.first_key_file()).ok()?;
        Some(text.trim())
            .filter(|key| !key.is_empty())
            .map(Secret::new)
    }

    /// Keeps the key of the first start, readable by its owner only.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_first_key(&self, secret: &Secret) -> io::Result<()> {
        let path = self.first_key_file();
        // A file that is there keeps its mode when it is written to, so that a new one takes its place.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        writeln!(file, "{}", secret.expose())?;
        file.sync_all()
    }

    /// The secret of this installation, from which names of tenants and cache keys at upstreams are derived: 32 random
    /// bytes, made at the first start and readable by their owner only.
    ///
    /// # Errors
    /// It can't be read or written, or is damaged.
    pub fn salt(&self) -> Result<[u8; SALT_BYTES], ServeError> {
        let path = self.path.join(SALT_FILE);
        let failed = |error: io::Error| {
            ServeError::new(format!(
                "the salt {} can't be read or written: {error}",
                path.display()
            ))
        };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_salt(&path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        bytes.try_into().map_err(|_| {
            ServeError::new(format!("the salt {} is damaged", path.display())).help(
                "put a backup in its place, or delete it: then what upstreams have cached is not found again",
            )
        })
    }

    /// Makes a salt unless another process was faster; returns the one that counts.
    fn make_salt(&self, path: &Path) -> io::Result<Vec<u8>> {
        let salt: [u8; SALT_BYTES] = rand::rng().random();
        // Whole or not at all; temporary files are made with mode 0600.
        let mut part = tempfile::NamedTempFile::new_in(&self.path)?;
        part.write_all(&salt)?;
        part.as_file().sync_all()?;
        match part.persist_noclobber(path) {
            Ok(_) => {
                File::open(&self.path)?.sync_all()?;
                Ok(salt.to_vec())
            }
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => std::fs::read(path),
            Err(error) => Err(error.error),
        }
    }
}
