//! The disk tier: one checksummed file per segment, and one small file per pin that lists its chain.
//!
//! A file is a cache entry: it may be lost at any time and is then computed again. It is trusted only if its checksum
//! and its key are right; the key covers namespace, model file, engine version and KV layout, so state from another
//! model or build can never match. With a [`StateKey`] files are sealed, which also tells whether they are whole, and
//! it is part of every key, so that names tell nothing of what was said and files from before it are removed. Writes
//! and removals happen on a thread of their own, in the order they were asked.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;

use holdfast_seal::StateKey;

use crate::prefix::PrefixKey;

const MAGIC: &[u8; 8] = b"HFKV0001";
/// Of files that are sealed: what follows is the key, then the sealed state.
const SEALED_MAGIC: &[u8; 8] = b"HFKS0001";
/// Magic, checksum of the rest, key.
const HEADER_BYTES: usize = 8 + 32 + 32;
/// Writes waiting for the writer thread; each holds one state in memory.
const WRITES_QUEUED_MAX: usize = 4;

/// A saved segment state.
pub(crate) type StateBytes = Arc<Vec<u8>>;

enum Job {
    Write(PrefixKey, StateBytes),
    Remove(PrefixKey),
    WritePin(String, Vec<PrefixKey>),
    RemovePin(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FileStatus {
    Writing,
    Present,
}

/// Why a state could not be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadFailure {
    /// There is no file.
    Absent,
    /// The file is damaged or belongs to something else.
    Corrupt,
}

/// The files of one engine.
pub(crate) struct DiskTier {
    folder: PathBuf,
    seal: Option<StateKey>,
    files: HashMap<PrefixKey, (FileStatus, u64)>,
    bytes: u64,
    bytes_max: u64,
    jobs: Option<SyncSender<Job>>,
    written: Receiver<(PrefixKey, bool)>,
    writer: Option<JoinHandle<()>>,
}

impl DiskTier {
    /// Opens (or makes) the folder for states of this fingerprint and removes those of any other.
    pub(crate) fn open(
        state_dir: &Path,
        fingerprint: &PrefixKey,
        bytes_max: u64,
        seal: Option<StateKey>,
    ) -> io::Result<Self> {
        let name = &fingerprint.hex()[..16];
        let folder = state_dir.join(name);
        fs::create_dir_all(folder.join("pins"))?;
        restrict(state_dir)?;
        for entry in fs::read_dir(state_dir)?.flatten() {
            if entry.file_name() != *name && entry.path().join("pins").is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let (job_sender, job_receiver) = sync_channel(WRITES_QUEUED_MAX);
        let (written_sender, written) = channel();
        let (writer_folder, writer_seal) = (folder.clone(), seal.clone());
        let writer = std::thread::Builder::new()
            .name("holdfast-state".into())
            .spawn(move || {
                let seal = writer_seal.as_ref();
                write_jobs(&writer_folder, seal, &job_receiver, &written_sender);
            })?;
        let mut tier = DiskTier {
            folder,
            seal,
            files: HashMap::new(),
            bytes: 0,
            bytes_max,
            jobs: Some(job_sender),
            written,
            writer: Some(writer),
        };
        tier.index()?;
        Ok(tier)
    }

    fn index(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                continue;
            }
            let key = entry
                .file_name()
                .to_str()
                .and_then(|name| name.strip_suffix(".kv"))
                .and_then(PrefixKey::from_hex);
            match key {
                Some(key) => {
                    let bytes = entry.metadata()?.len();
                    self.files.insert(key, (FileStatus::Present, bytes));
                    self.bytes += bytes;
                }
                // A write that a crash cut off.
                None => fs::remove_file(path)?,
            }
        }
        Ok(())
    }

    /// The pins on disk with their chains, root first.
    pub(crate) fn pins(&self) -> Vec<(String, Vec<PrefixKey>)> {
        let Ok(entries) = fs::read_dir(self.folder.join("pins")) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let pin = entry
                    .file_name()
                    .to_str()
                    .filter(|name| !name.contains('.'))?
                    .to_owned();
                let text = fs::read_to_string(entry.path()).ok()?;
                let chain: Option<Vec<PrefixKey>> = text.lines().map(PrefixKey::from_hex).collect();
                Some((pin, chain?))
            })
            .collect()
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the state can be read back now.
    pub(crate) fn has(&self, key: &PrefixKey) -> bool {
        matches!(self.files.get(key), Some((FileStatus::Present, _)))
    }

    /// Whether a write of this state is done or under way.
    pub(crate) fn knows(&self, key: &PrefixKey) -> bool {
        self.files.contains_key(key)
    }

    /// Whether a write is under way.
    pub(crate) fn is_writing(&self) -> bool {
        self.files
            .values()
            .any(|(status, _)| *status == FileStatus::Writing)
    }

    /// Keys of all files.
    pub(crate) fn keys(&self) -> Vec<PrefixKey> {
        self.files.keys().copied().collect()
    }

    /// Queues a write. `false`: the budget is used up or the writer is behind; the state stays in memory only.
    pub(crate) fn write(&mut self, key: PrefixKey, state: &StateBytes) -> bool {
        let bytes = file_bytes(self.seal.is_some(), state.len() as u64);
        if self.knows(&key) {
            return true;
        }
        if self.bytes + bytes > self.bytes_max || !self.send(Job::Write(key, Arc::clone(state))) {
            return false;
        }
        self.files.insert(key, (FileStatus::Writing, bytes));
        self.bytes += bytes;
        true
    }

    /// Queues the removal of a file.
    pub(crate) fn remove(&mut self, key: &PrefixKey) {
        if let Some((_, bytes)) = self.files.remove(key) {
            self.bytes -= bytes;
            self.send_waiting(Job::Remove(*key));
        }
    }

    /// Queues the writing of a pin.
    pub(crate) fn write_pin(&mut self, pin: &str, chain: Vec<PrefixKey>) {
        self.send_waiting(Job::WritePin(pin_file_name(pin), chain));
    }

    /// Queues the removal of a pin.
    pub(crate) fn remove_pin(&mut self, pin: &str) {
        self.send_waiting(Job::RemovePin(pin_file_name(pin)));
    }

    /// Takes note of finished writes.
    pub(crate) fn collect_written(&mut self) {
        while let Ok((key, ok)) = self.written.try_recv() {
            match self.files.get_mut(&key) {
                Some(file) if ok => file.0 = FileStatus::Present,
                Some(_) => {
                    if let Some((_, bytes)) = self.files.remove(&key) {
                        self.bytes -= bytes;
                    }
                }
                None => {}
            }
        }
    }

    /// Reads and checks a state.
    pub(crate) fn read(&self, key: &PrefixKey) -> Result<Vec<u8>, ReadFailure> {
        if !self.has(key) {
            return Err(ReadFailure::Absent);
        }
        let path = self.folder.join(file_name(key));
        let read = match &self.seal {
            Some(seal) => read_sealed(&path, seal, key),
            None => read_state(&path, key),
        };
        read.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ReadFailure::Absent,
            _ => ReadFailure::Corrupt,
        })
    }

    /// Waits until all queued jobs are done.
    pub(crate) fn close(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // The writer never panics on I/O; if it did, its states are simply not there next time.
            let _ = writer.join();
        }
        self.collect_written();
    }

    fn send(&self, job: Job) -> bool {
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        }
    }

    fn send_waiting(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // Fails only when the writer has ended, and then nothing can be done about a file.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for DiskTier {
    fn drop(&mut self) {
        self.close();
    }
}

/// Stored prefixes are customers' data: only the owner of the process may look.
fn restrict(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn file_name(key: &PrefixKey) -> String {
    format!("{}.kv", key.hex())
}

/// A pin's name as it may stand in a folder. Context ids pass unchanged.
pub(crate) fn pin_file_name(pin: &str) -> String {
    let plain = !pin.is_empty()
        && pin.len() <= 128
        && pin
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if plain {
        pin.to_owned()
    } else {
        blake3::hash(pin.as_bytes()).to_hex().to_string()
    }
}

fn file_bytes(is_sealed: bool, state_bytes: u64) -> u64 {
    if is_sealed {
        (SEALED_MAGIC.len() + 32) as u64 + StateKey::sealed_bytes(state_bytes)
    } else {
        HEADER_BYTES as u64 + state_bytes
    }
}

fn write_jobs(
    folder: &Path,
    seal: Option<&StateKey>,
    jobs: &Receiver<Job>,
    written: &Sender<(PrefixKey, bool)>,
) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Write(key, state) => {
                let result = match seal {
                    Some(seal) => write_sealed(folder, seal, &key, &state),
                    None => write_state(folder, &key, &state),
                };
                if let Err(error) = &result {
                    tracing::warn!(%error, "a prefix state could not be written to disk");
                }
                // The receiver is gone only while shutting down.
                let _ = written.send((key, result.is_ok()));
            }
            Job::Remove(key) => log_failure(fs::remove_file(folder.join(file_name(&key)))),
            Job::WritePin(pin, chain) => {
                let text: String = chain.iter().map(|key| key.hex() + "\n").collect();
                log_failure(replace_file(&folder.join("pins").join(pin), |file| {
                    file.write_all(text.as_bytes())
                }));
            }
            Job::RemovePin(pin) => log_failure(fs::remove_file(folder.join("pins").join(pin))),
        }
    }
}

fn log_failure(result: io::Result<()>) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "the prefix state folder could not be changed");
        }
        _ => {}
    }
}

fn read_state(path: &Path, key: &PrefixKey) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut header = [0_u8; HEADER_BYTES];
    file.read_exact(&mut header)?;
    let mut state = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    file.read_to_end(&mut state)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header[40..]);
    // A state is some tens of megabytes, and a request is waiting for it.
    hasher.update_rayon(&state);
    let is_right = &header[..8] == MAGIC
        && header[40..] == *key.bytes()
        && hasher.finalize().as_bytes() == &header[8..40];
    if is_right {
        Ok(state)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn write_state(folder: &Path, key: &PrefixKey, state: &[u8]) -> io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.bytes());
    hasher.update(state);
    let checksum = hasher.finalize();
    replace_file(&folder.join(file_name(key)), |file| {
        let parts: [&[u8]; 4] = [MAGIC, checksum.as_bytes(), key.bytes(), state];
        parts.into_iter().try_for_each(|part| file.write_all(part))
    })
}

fn read_sealed(path: &Path, seal: &StateKey, key: &PrefixKey) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let mut head = [0; SEALED_MAGIC.len() + 32];
    let bytes = file.metadata()?.len().saturating_sub(head.len() as u64);
    file.read_exact(&mut head)?;
    if !head.starts_with(SEALED_MAGIC) || head[SEALED_MAGIC.len()..] != *key.bytes() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    seal.open(key.bytes(), &mut file, bytes)
}

fn write_sealed(folder: &Path, seal: &StateKey, key: &PrefixKey, state: &[u8]) -> io::Result<()> {
    replace_file(&folder.join(file_name(key)), |file| {
        file.write_all(SEALED_MAGIC)?;
        file.write_all(key.bytes())?;
        seal.seal(key.bytes(), state, file)
    })
}

/// Writes beside the file and renames, so that a reader sees all or nothing. Not synced: a checksum guards the content.
fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut fs::File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = path.with_extension("part");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&temporary)?;
    write(&mut file)?;
    drop(file);
    fs::rename(&temporary, path)
}
