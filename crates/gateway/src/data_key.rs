//! The data key: where the configuration says it is, and how it is had from there when the store is opened.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use holdfast_seal::{DataKey, Keyring};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::keys::Secret;

/// How long a command may take: a key service is asked over a network.
const COMMAND_WAIT: Duration = Duration::from_secs(30);

/// A key is 64 characters at most; what is longer is something else.
const OUTPUT_BYTES_MAX: u64 = 1024;

/// `[storage.encryption]`: what seals what clients said, before it reaches a disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncryptionConfig {
    /// Seals and opens. `None`: nothing is sealed.
    pub key: Option<KeySource>,
    /// Open what they have sealed.
    pub previous: Vec<KeySource>,
}

/// Where a data key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Read already.
    Known(Secret),
    /// A program that prints it, with its arguments. It is run when the store is opened.
    Command {
        /// A path, or a name to be looked for as a shell does.
        program: PathBuf,
        /// As they are written, split at white space.
        arguments: Vec<String>,
    },
    /// It can't be had where the command runs, and why; only without secrets (see
    /// [`crate::config::Config::load_without_secrets`]).
    OutOfReach(String),
}

impl EncryptionConfig {
    /// The keys themselves.
    ///
    /// # Errors
    /// Which one can't be had, and why. No key is quoted.
    pub async fn keyring(&self) -> Result<Keyring, String> {
        let current = match &self.key {
            Some(source) => Some(read(source, "key").await?),
            None => None,
        };
        let mut previous = Vec::new();
        for source in &self.previous {
            previous.push(read(source, "previous_keys").await?);
        }
        Ok(Keyring::new(current, &previous))
    }
}

impl KeySource {
    /// Of the text after `command:`. Programs that are given by a relative path are looked for in `folder`.
    pub fn command(text: &str, folder: &Path) -> Option<Self> {
        let mut words = text.split_whitespace().map(str::to_owned);
        let program = words.next()?;
        Some(KeySource::Command {
            program: match program.contains('/') {
                true => folder.join(program),
                false => PathBuf::from(program),
            },
            arguments: words.collect(),
        })
    }
}

async fn read(source: &KeySource, name: &str) -> Result<DataKey, String> {
    let failed = |why: &str| format!("`{name}` in [storage.encryption]: {why}");
    let text = match source {
        KeySource::Known(secret) => secret.clone(),
        KeySource::OutOfReach(why) => return Err(failed(why)),
        KeySource::Command { program, arguments } => output(program, arguments)
            .await
            .map_err(|why| failed(&format!("{}: {why}", program.display())))?,
    };
    DataKey::parse(text.expose()).map_err(|error| failed(&error.to_string()))
}

/// What the program prints. It gets no input, and what it has to say on standard error goes to ours.
async fn output(program: &Path, arguments: &[String]) -> Result<Secret, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("it can't be run: {error}"))?;
    let mut text = String::new();
    let finished = tokio::time::timeout(COMMAND_WAIT, async {
        if let Some(stdout) = child.stdout.take() {
            // Taken away when it has printed enough, so that one that goes on printing fails.
            stdout
                .take(OUTPUT_BYTES_MAX)
                .read_to_string(&mut text)
                .await?;
        }
        child.wait().await
    });
    let status = finished
        .await
        .map_err(|_| format!("it has not finished within {} s", COMMAND_WAIT.as_secs()))?
        .map_err(|error| format!("what it prints can't be read: {error}"))?;
    if !status.success() {
        return Err(format!("it has failed ({status})"));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests;
