//! Why a request is not let in, and how clients are told.

use std::time::Duration;

use holdfast_protocol::{ApiError, ErrorKind};

use super::{Quotas, Subject};

/// What a limit is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Requests,
    Tokens,
    Running,
}

impl What {
    /// The word in counters.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            What::Requests => "requests",
            What::Tokens => "tokens",
            What::Running => "concurrent",
        }
    }
}

/// Why something is not admitted, and from when on it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) subject: Subject,
    pub(crate) limit: u64,
    pub(crate) what: What,
    /// `None`: never, for it is more than the limit.
    pub(crate) retry_after: Option<Duration>,
}

/// A refusal, and what is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) refusal: Box<Refusal>,
    pub(crate) quotas: Quotas,
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let Refusal {
            subject,
            limit,
            what,
            retry_after,
        } = *refused.refusal;
        let whose = subject.kind();
        let what = match what {
            What::Requests => format!("{limit} requests per minute"),
            What::Tokens => format!("{limit} tokens per minute"),
            What::Running => format!("{limit} requests at the same time"),
        };
        if let Some(retry_after) = retry_after {
            let message =
                format!("This {whose} has reached its limit of {what}. Try again a little later.");
            return ApiError::rate_limited(message, retry_after);
        }
        let mut error = ApiError::new(
            ErrorKind::RateLimited,
            format!(
                "This request alone may use more than the {whose}'s limit of {what}, so that it can never be let in. \
                 Shorten it, or ask for a shorter answer."
            ),
        );
        error.should_retry = Some(false);
        error
    }
}
