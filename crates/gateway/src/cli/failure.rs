//! Failures as a person reads them: what was being done, why it failed, what to try.

use std::process::ExitCode;

use crate::client::ClientError;
use crate::config::ConfigErrors;
use crate::models::ModelError;
use crate::serve::ServeError;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// One or more lines.
    pub(crate) message: String,
    /// What to try.
    pub(crate) help: Option<String>,
    /// Whether the message already looks as it should (with carets and all).
    pub(crate) is_rendered: bool,
    /// Whether the user asked for something that can't be.
    is_usage: bool,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            help: None,
            is_rendered: false,
            is_usage: false,
        }
    }

    /// A command line that can't be meant.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure {
            is_usage: true,
            ..Self::new(message)
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Puts in front what was being done, unless the message stands for itself.
    pub(crate) fn doing(mut self, what: &str) -> Self {
        if self.is_rendered {
            return self;
        }
        self.message = format!("could not {what}: {}", self.message);
        self
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.is_usage { 2 } else { 1 })
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Failure {
            is_rendered: true,
            ..Self::new(errors.to_string().trim_end())
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        Failure {
            help: error.help,
            ..Self::new(error.message)
        }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Failure::new(error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = Failure::new(error.to_string());
        match &error {
            ClientError::Unreachable { .. } => {
                failure.help("start one with `holdfast serve`, or name another with --url")
            }
            ClientError::Refused {
                status, request_id, ..
            } => match (*status, request_id) {
                (401, _) => failure.help("set HOLDFAST_API_KEY to a key of this server"),
                (403, _) if !failure.message.contains("InProgress") => {
                    failure.help("`holdfast key list` shows what each key may do")
                }
                (500.., Some(id)) => {
                    failure.help(format!("the server's log has more under request {id}"))
                }
                _ => failure,
            },
            ClientError::Url(_) => Failure {
                is_usage: true,
                ..failure
            },
            ClientError::Broken { .. } | ClientError::Unexpected { .. } => {
                failure.help("`holdfast doctor` checks whether a server of this version runs there")
            }
        }
    }
}
