//! Requests that are passed through: which upstreams have the endpoint, and one request from there to the answer's first
//! bytes.

use std::sync::Arc;

use holdfast_protocol::ApiError;
use holdfast_protocol::provider::RawPath;
use holdfast_protocol::upstream::{Failure, FailureKind, HttpCall};

use super::turns::leave;
use super::{Refusal, RouteBackend};
use crate::backend::{RawAnswer, RawWork};
use crate::upstream::Target;
use crate::upstream::billing::Payer;
use crate::upstream::pool::Seat;
use crate::upstream::raw::{Passing, RawSettlement};

/// What is reserved for the answer of a request that is passed through, tokens. Most have none that is charged for.
const PASSED_OUTPUT_TOKENS: u64 = 1_000;

/// What is reserved for a form, tokens.
const PASSED_FORM_TOKENS: u64 = 2_000;

impl RouteBackend {
    /// Sends a request to the first upstream with its endpoint that answers.
    pub(super) async fn pass(&self, work: RawWork) -> Result<RawAnswer, ApiError> {
        let mut order = self.order(None);
        order.retain(|target| target.has(work.path));
        if order.is_empty() {
            return Err(no_endpoint(work.path));
        }
        self.reserve(&work.entry, passed_tokens(&work), PASSED_OUTPUT_TOKENS)
            .await?;
        self.in_turn(order, "", None, |target, seat| {
            Box::pin(self.pass_to(target, &work, seat))
        })
        .await
    }

    async fn pass_to(
        &self,
        target: &Arc<Target>,
        work: &RawWork,
        seat: Arc<Seat>,
    ) -> Result<RawAnswer, Refusal> {
        let leave = leave(target, &seat).await?;
        work.entry.asks(target.name(), &target.model);
        let timeouts = target.upstream.options.timeouts;
        let until = work
            .deadline
            .min(tokio::time::Instant::now() + timeouts.total);
        let mut call = HttpCall::post(work.path.path(), work.body.for_model(&target.model));
        let own = target.rules.quirks.headers.iter();
        call.headers
            .extend(own.map(|(name, value)| (*name, (*value).to_owned())));
        call.headers
            .push(("content-type", work.body.content_type().to_owned()));
        let begun = async {
            let mut reply = self.send(target, &seat.worker, call).await?;
            // A failure before the first bytes has done nothing that the client could have seen.
            let first = reply.first_chunk().await?;
            Ok((reply, first))
        };
        let (reply, first) = tokio::time::timeout(timeouts.first_byte, begun)
            .await
            .unwrap_or_else(|_| {
                Err(Failure::new(
                    FailureKind::Timeout,
                    "the first bytes did not come in time",
                ))
            })?;
        let settlement = RawSettlement {
            shared: Arc::clone(&self.shared),
            target: Arc::clone(target),
            worker: Arc::clone(&seat.worker),
            path: work.path,
            payer: Payer {
                entry: work.entry.clone(),
                project: work.project.clone(),
                model: work.model.clone(),
            },
        };
        work.entry.first_token();
        Ok(Passing::new(reply, first, until, settlement, leave).into_answer())
    }
}

/// About how many tokens of input a request has whose meaning is not known here: four bytes of text are one, and a form
/// is mostly a file, which is as many as a page.
fn passed_tokens(work: &RawWork) -> u64 {
    match work.body.is_form() {
        true => PASSED_FORM_TOKENS,
        false => (work.body.bytes().len() as u64).div_ceil(4),
    }
}

fn no_endpoint(path: RawPath) -> ApiError {
    ApiError::unsupported(
        "model",
        format!(
            "can't be used here: none of its upstreams has the endpoint `{}`",
            path.path()
        ),
    )
}
