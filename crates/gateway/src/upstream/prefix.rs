//! A context's prefix on its way to upstreams: rendered once for each, then sent as the same bytes every time.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use holdfast_protocol::upstream::{EncodedPrefix, Markers, PrefixParts};
use holdfast_protocol::{ApiError, Message};

use super::Target;
use super::estimate;
use super::pool::{self, Digest};
use crate::backend::PrefixContent;

/// Renderings kept; a route with more upstreams renders some of them again.
const ENCODED_MAX: usize = 8;

/// For which target, with which markers, and whether with the tenant's line.
type Rendering = (usize, Markers, bool);

/// What a context holds, in the form of each upstream that has been asked.
#[derive(Debug)]
pub(crate) struct UpstreamPrefix {
    content: PrefixContent,
    bytes: usize,
    /// Made when a fleet is asked for the first time.
    digest: OnceLock<Digest>,
    encoded: Mutex<Vec<(Rendering, Arc<EncodedPrefix>)>>,
}

impl UpstreamPrefix {
    pub(crate) fn new(content: PrefixContent) -> Self {
        let messages = content.initial.iter().chain(&content.history);
        // Twice: as messages, and about as much again rendered for one upstream.
        let bytes = messages
            .map(|message| 4 * usize::try_from(estimate::message(message)).unwrap_or(0))
            .sum::<usize>()
            .saturating_mul(2);
        UpstreamPrefix {
            content,
            bytes,
            digest: OnceLock::new(),
            encoded: Mutex::default(),
        }
    }

    /// Names what it begins with, which all turns of a session and all forks of a context have in common.
    pub(crate) fn digest(&self) -> &Digest {
        self.digest
            .get_or_init(|| pool::digest(&self.content.initial, &self.content.tools))
    }

    /// What it is made of.
    pub(crate) fn content(&self) -> &PrefixContent {
        &self.content
    }

    /// The same without seals on reasoning.
    pub(crate) fn without_seals(&self) -> Self {
        let content = &self.content;
        let unsealed = |messages: &[Message]| {
            let mut messages = messages.to_vec();
            for message in &mut messages {
                message.reasoning_signature = None;
            }
            messages
        };
        UpstreamPrefix::new(PrefixContent {
            project: content.project.clone(),
            initial: unsealed(&content.initial),
            history: unsealed(&content.history),
            previous_history: content.previous_history,
            tools: content.tools.clone(),
            tool_choice: content.tool_choice.clone(),
            rendered_at: content.rendered_at,
        })
    }

    /// Memory, about, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Rendered for `target`.
    ///
    /// # Errors
    /// Something in it can't be expressed there.
    pub(crate) fn encode(
        &self,
        target: &Target,
        markers: Markers,
        tenant_line: Option<&str>,
    ) -> Result<Arc<EncodedPrefix>, ApiError> {
        // The line itself is always the same: a prefix is one tenant's.
        let rendering: Rendering = (target.learnt.id, markers, tenant_line.is_some());
        let known = |encoded: &[(Rendering, Arc<EncodedPrefix>)]| {
            encoded
                .iter()
                .find(|(known, _)| *known == rendering)
                .map(|(_, prefix)| Arc::clone(prefix))
        };
        if let Some(prefix) = known(&self.lock()) {
            return Ok(prefix);
        }
        let parts = PrefixParts {
            initial: &self.content.initial,
            history: &self.content.history,
            previous_history: self.content.previous_history,
            tools: &self.content.tools,
            markers,
            tenant_line,
        };
        let prefix = Arc::new(target.dialect.encode_prefix(&parts, &target.rules)?);
        let mut encoded = self.lock();
        if let Some(prefix) = known(&encoded) {
            return Ok(prefix);
        }
        if encoded.len() >= ENCODED_MAX {
            encoded.remove(0);
        }
        encoded.push((rendering, Arc::clone(&prefix)));
        Ok(prefix)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Rendering, Arc<EncodedPrefix>)>> {
        self.encoded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
