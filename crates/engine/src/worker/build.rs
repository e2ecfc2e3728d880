//! Prefixes being computed: for somebody who waits, or ahead for later.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Work, Worker};
use crate::error::EngineError;
use crate::model::{Model, Sequence};
use crate::prefix::{Prefix, PrefixKey, Segment};

/// A prefix being computed.
pub(super) struct Build {
    pub(super) prefix: Arc<Prefix>,
    pub(super) sequence: Sequence,
    /// Segment under way.
    pub(super) next: usize,
    /// Tokens of it that are done.
    pub(super) offset: usize,
}

impl<M: Model> Worker<'_, M> {
    pub(super) fn abandon_unwanted_builds(&mut self) {
        for index in (0..self.builds.len()).rev() {
            let build = &self.builds[index];
            let under_way = build.prefix.segments()[build.next].key;
            let wanted = self.waiting.iter().any(|waiting| {
                waiting.work.prefix().is_some_and(|prefix| {
                    prefix
                        .segments()
                        .iter()
                        .any(|segment| segment.key == under_way)
                })
            });
            if !wanted && let Some(build) = self.builds.remove(index) {
                self.end_build(build);
            }
        }
    }

    pub(super) fn end_build(&mut self, build: Build) {
        self.cache
            .build_abandoned(&build.prefix, build.sequence, &mut self.sequences);
        self.unhold(Some(build.prefix));
    }

    /// Lets a request have the machine (and the KV cache, see [`PrefixCache::attach`]) to itself when all that runs are
    /// prefixes computed ahead, unless one of them is what it needs. Those begin again after it.
    pub(super) fn postpone_background(&mut self, work: &Work) {
        let needed = |segment: &Segment| {
            work.prefix()
                .is_some_and(|prefix| prefix.segments().iter().any(|own| own.key == segment.key))
        };
        let in_use = !self.slots.is_empty()
            || self
                .waiting
                .iter()
                .any(|waiting| !waiting.work.is_background())
            || self
                .builds
                .iter()
                .any(|build| build.prefix.segments()[build.next..].iter().any(needed));
        if in_use {
            return;
        }
        for build in std::mem::take(&mut self.builds) {
            self.end_build(build);
        }
        for waiting in std::mem::take(&mut self.waiting) {
            self.unhold(waiting.work.prefix().cloned());
            self.background.push_front(waiting.work);
        }
    }

    pub(super) fn build_turn(&mut self) -> bool {
        let Some(mut build) = self.builds.pop_front() else {
            return false;
        };
        match self.build_chunk(&mut build) {
            Ok(true) => self.unhold(Some(build.prefix)),
            Ok(false) => self.builds.push_back(build),
            Err(error) => self.build_failed(build, &error),
        }
        true
    }

    /// `true` when the whole prefix is done.
    pub(super) fn build_chunk(&mut self, build: &mut Build) -> Result<bool, EngineError> {
        let segment = build.prefix.segments()[build.next].clone();
        let rest = &segment.tokens[build.offset..];
        let chunk = &rest[..rest.len().min(self.options.chunk_tokens as usize)];
        self.compute(
            chunk,
            segment.start + build.offset as u32,
            build.sequence,
            false,
        )?;
        build.offset += chunk.len();
        if build.offset < segment.tokens.len() {
            return Ok(false);
        }
        self.cache.segment_built(
            &build.prefix,
            build.next,
            build.sequence,
            &mut self.sequences,
        )?;
        build.next += 1;
        build.offset = 0;
        let done = build.next == build.prefix.len_segments();
        if !done {
            self.sequences.begin_block(build.sequence);
        }
        Ok(done)
    }

    pub(super) fn build_failed(&mut self, build: Build, error: &EngineError) {
        tracing::error!(%error, "a prefix could not be computed");
        let failed: HashSet<PrefixKey> = build.prefix.segments()[build.next..]
            .iter()
            .map(|segment| segment.key)
            .collect();
        self.end_build(build);
        for waiting in std::mem::take(&mut self.waiting) {
            let prefix = waiting.work.prefix().cloned();
            let concerned = prefix.as_ref().is_some_and(|prefix| {
                prefix
                    .segments()
                    .iter()
                    .any(|segment| failed.contains(&segment.key))
            });
            if concerned {
                self.unhold(prefix);
                waiting.work.fail(error.clone());
            } else {
                self.waiting.push(waiting);
            }
        }
    }
}
