//! An upstream's answer that is passed through, on its way to the client.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use holdfast_protocol::ApiError;
use holdfast_protocol::provider::RawPath;
use holdfast_protocol::raw::UsageWatch;
use holdfast_protocol::upstream::{Failure, FailureKind};
use holdfast_protocol::usage::Source;
use reqwest::header::CONTENT_TYPE;
use tokio::time::Instant;

use super::billing::{self, Payer};
use super::pool::{Leave, Worker};
use super::transport::Reply;
use super::{Shared, Target};
use crate::backend::RawAnswer;
use crate::ledger::Entry;

/// What is needed to count an answer.
pub(super) struct RawSettlement {
    pub(super) shared: Arc<Shared>,
    pub(super) target: Arc<Target>,
    /// Which of its upstream's servers answers.
    pub(super) worker: Arc<Worker>,
    pub(super) path: RawPath,
    /// Whose request it is.
    pub(super) payer: Payer,
}

/// An answer under way. However it ends, what it has said of its usage is counted.
pub(super) struct Passing {
    reply: Reply,
    /// What has come already; `None` inside: nothing will come.
    first: Option<Option<Bytes>>,
    watch: UsageWatch,
    until: Instant,
    settlement: Option<RawSettlement>,
    entry: Entry,
    /// Given back with the answer's end.
    _leave: Leave,
}

impl Passing {
    pub(super) fn new(
        reply: Reply,
        first: Option<Bytes>,
        until: Instant,
        settlement: RawSettlement,
        leave: Leave,
    ) -> Self {
        let content_type = reply.headers.get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        Passing {
            watch: UsageWatch::new(content_type.unwrap_or_default()),
            reply,
            first: Some(first),
            until,
            entry: settlement.payer.entry.clone(),
            settlement: Some(settlement),
            _leave: leave,
        }
    }

    /// The answer for the client.
    pub(super) fn into_answer(self) -> RawAnswer {
        RawAnswer {
            status: self.reply.status,
            headers: self.reply.headers.clone(),
            body: stream::unfold(Some(self), |passing| async move {
                let mut passing = passing?;
                match passing.next().await {
                    Ok(bytes) => Some((Ok(bytes?), Some(passing))),
                    Err(failure) => Some((Err(passing.broken(&failure)), None)),
                }
            })
            .boxed(),
        }
    }

    /// More of the answer; `None` at its end.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let bytes = match self.first.take() {
            Some(first) => first,
            None => tokio::time::timeout_at(self.until, self.reply.chunk())
                .await
                .unwrap_or_else(|_| {
                    Err(Failure::new(
                        FailureKind::Timeout,
                        "the answer took too long",
                    ))
                })?,
        };
        // Whoever has read the answer finds it counted.
        match &bytes {
            Some(bytes) => {
                self.watch.push(bytes);
                if self.watch.is_over() {
                    self.settle();
                }
            }
            None => self.settle(),
        }
        Ok(bytes)
    }

    /// An answer that has begun can't be mended: the connection to the client breaks off as the upstream's did.
    fn broken(&mut self, failure: &Failure) -> ApiError {
        if let Some(settlement) = &self.settlement {
            let target = &settlement.target;
            settlement.worker.breaker.failed(failure);
            tracing::warn!(
                upstream = target.name(),
                failure = failure.kind.as_str(),
                "an upstream's answer broke off"
            );
        }
        let error = failure.to_api_error();
        let entry = self.entry.clone();
        // What has been said of its usage up to here is charged for.
        self.settle();
        entry.fail(&error);
        error
    }

    fn settle(&mut self) {
        let Some(RawSettlement {
            shared,
            target,
            worker: _,
            path,
            payer,
        }) = self.settlement.take()
        else {
            return;
        };
        let Some(usage) = self.watch.usage() else {
            return;
        };
        // Counts that contradict each other are nobody's.
        let is_reported = usage.fresh_tokens().is_some();
        let events = &shared.events;
        events.upstream_usage(&target, path.as_str(), &usage, is_reported);
        events.chat_finished(&payer.model, &usage.to_usage(), None);
        let money = billing::priced(&shared, &target, &usage);
        let source = if is_reported {
            Source::Provider
        } else {
            Source::Estimate
        };
        let charge = billing::charge(&usage, source, money.as_ref());
        billing::bill(&shared, &target, &payer, None, &charge);
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.settle();
    }
}
