//! Contexts that nobody created by name: made where a request marks the end of a prefix in its own dialect's way, and
//! where the gateway notices that requests begin alike.
//!
//! They are contexts like all others (stored, measured, swept, accounted), found again by a digest of what they hold and
//! usable by their id, but they are not listed, their limits give way to contexts with names, and whatever keeps one from
//! being made keeps no request from being answered.
//!
//! A digest covers project, model, tools and messages, so that equal content of two projects never meets. Messages after
//! the first are units of their own in the prefix: the next request of a conversation continues from what the one before
//! has computed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::chat::{ChatRequest, Message};
use holdfast_protocol::context::{
    CachePolicy, ContextContent, ContextMode, CreateContext, CreateSurface, OnTooSmall, Profile,
    ProfileKind, StoredMessage, Turn, Warm,
};
use holdfast_protocol::usage::{CacheStatus, Origin};
use holdfast_protocol::{
    ApiError, Context, ContextId, ErrorKind, Receipt, Role, UnixMillis, Usage,
};
use holdfast_store::LivingContext;

use super::{Contexts, Created, new_id, rendered_at};
use crate::backend::{PrefixContent, PreparedPrefix, TurnSize};
use crate::ledger::Entry;
use crate::routing::Model;

/// How long a prefix is kept after its last use when the request does not say, seconds: Anthropic's default.
const TTL_SECONDS: u32 = 300;

/// Longest life that a request's marker gets, seconds: OpenAI's longest.
const TTL_SECONDS_MAX: u32 = 43_200;

/// A prefix below this is computed as quickly as it is looked up, tokens.
const TOKENS_MIN: u32 = 32;

/// The gateway keeps no context of its own accord below this, tokens: the smallest prefix that most providers cache.
const AUTO_TOKENS_MIN: u32 = 1_024;

/// How far back from its end a conversation looks for an earlier context to continue from, messages.
const LOOKBACK_MESSAGES: usize = 40;

/// How many beginnings of a request are remembered for the next one to be compared with.
const SEEN_PER_REQUEST_MAX: usize = 32;

/// Implicit contexts of a project that are searched for what was deleted, the most recently used ones.
const BEGINNINGS_SEARCHED_MAX: usize = 1000;

/// Beginnings remembered of all requests.
const SEEN_MAX: usize = 50_000;

/// For how long a beginning is remembered, milliseconds.
const SEEN_MS: UnixMillis = 3_600_000;

/// A context may lapse between being found and being opened; with less than this left it counts as gone, milliseconds.
const MARGIN_MS: UnixMillis = 1_000;

type Digest = [u8; 32];

/// Implicit contexts by what they hold, and the beginnings of requests that may become some.
#[derive(Default)]
pub(super) struct Implicit {
    index: Mutex<Index>,
    seen: Mutex<HashMap<Digest, Seen>>,
}

#[derive(Default)]
struct Index {
    by_digest: HashMap<String, Known>,
    /// Digests in the order of their last use, oldest first, by project.
    by_use: HashMap<String, BTreeMap<u64, String>>,
    uses: u64,
}

struct Known {
    id: ContextId,
    project: String,
    tokens: u64,
    used: u64,
}

#[derive(Clone, Copy)]
struct Seen {
    first: UnixMillis,
    last: UnixMillis,
    times: u32,
}

/// An implicit context in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attached {
    /// What brought it about.
    origin: Origin,
    /// Tokens of its prefix that were computed for this request; `None`: it was there before.
    made: Option<u64>,
    /// Whether making it computed the prefix at once, and not the chat.
    is_held: bool,
}

impl Attached {
    /// What the request has written is not what it has read, although the one part of it wrote what the other one read.
    pub(crate) fn settle(&self, usage: &mut Usage, receipt: Option<&mut Receipt>) {
        let Some(receipt) = receipt else { return };
        receipt.origin = Some(self.origin);
        let Some(written) = self.made.filter(|_| self.is_held) else {
            return;
        };
        let written = written.min(usage.cached_input_tokens);
        usage.cached_input_tokens -= written;
        usage.cache_write_tokens = usage.cache_write_tokens.max(written);
        receipt.cached_tokens = receipt.cached_tokens.saturating_sub(written);
        receipt.written_tokens = receipt.written_tokens.max(written);
        if receipt.status == CacheStatus::Hit && written > 0 {
            receipt.status = CacheStatus::Miss;
            receipt.reason = Some("first_use".to_owned());
            receipt.tier = None;
        }
    }
}

/// A prefix that a request wants held.
struct Wanted {
    messages: usize,
    ttl_seconds: u32,
    origin: Origin,
}

impl Implicit {
    /// Takes in a context, new or from before the start.
    pub(super) fn insert(&self, context: &LivingContext) {
        let Some(digest) = &context.implicit else {
            return;
        };
        let mut index = self.index();
        index.remove(digest);
        index.uses += 1;
        let used = index.uses;
        index
            .by_use
            .entry(context.project.clone())
            .or_default()
            .insert(used, digest.clone());
        index.by_digest.insert(
            digest.clone(),
            Known {
                id: context.id.clone(),
                project: context.project.clone(),
                tokens: context.prefix_tokens,
                used,
            },
        );
    }

    /// Takes in a context that another replica has made, unless one that holds the same is known.
    pub(super) fn insert_new(&self, context: &LivingContext) {
        let is_known = |digest: &String| self.index().by_digest.contains_key(digest);
        if !context.implicit.as_ref().is_some_and(is_known) {
            self.insert(context);
        }
    }

    /// Forgets a context that is gone.
    pub(super) fn remove(&self, context: &Context) {
        let Some(digest) = &context.implicit else {
            return;
        };
        let mut index = self.index();
        // Another one may hold the same by now.
        if index
            .by_digest
            .get(digest)
            .is_some_and(|known| known.id == context.id)
        {
            index.remove(digest);
        }
    }

    /// Forgets those whose contexts are gone, when nobody knows what these held.
    pub(super) fn remove_all(&self, gone: &HashSet<ContextId>) {
        let mut index = self.index();
        let digests: Vec<String> = index
            .by_digest
            .iter()
            .filter(|(_, known)| gone.contains(&known.id))
            .map(|(digest, _)| digest.clone())
            .collect();
        for digest in digests {
            index.remove(&digest);
        }
    }

    fn find(&self, digest: &str) -> Option<(ContextId, u64)> {
        let mut index = self.index();
        index.uses += 1;
        let uses = index.uses;
        let known = index.by_digest.get_mut(digest)?;
        let before = std::mem::replace(&mut known.used, uses);
        let found = (known.id.clone(), known.tokens);
        let project = known.project.clone();
        let by_use = index.by_use.entry(project).or_default();
        by_use.remove(&before);
        by_use.insert(uses, digest.to_owned());
        Some(found)
    }

    /// The project's longest unused one.
    fn oldest(&self, project: &str) -> Option<ContextId> {
        let index = self.index();
        let (_, digest) = index.by_use.get(project)?.first_key_value()?;
        Some(index.by_digest.get(digest)?.id.clone())
    }

    /// The project's most recently used ones, at most `limit`.
    fn latest(&self, project: &str, limit: usize) -> Vec<ContextId> {
        let index = self.index();
        let by_use = index.by_use.get(project).into_iter().flatten().rev();
        by_use
            .filter_map(|(_, digest)| Some(index.by_digest.get(digest)?.id.clone()))
            .take(limit)
            .collect()
    }

    /// Notes that a request begins so; what was known of that before.
    fn note(&self, digest: &Digest, now: UnixMillis) -> Option<Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SEEN_MAX {
            seen.retain(|_, seen| now - seen.last < SEEN_MS);
            if seen.len() >= SEEN_MAX {
                seen.clear();
            }
        }
        let known = seen
            .get(digest)
            .copied()
            .filter(|seen| now - seen.last < SEEN_MS);
        let first = known.map_or(now, |seen| seen.first);
        let times = known.map_or(1, |seen| seen.times.saturating_add(1));
        seen.insert(
            *digest,
            Seen {
                first,
                last: now,
                times,
            },
        );
        known
    }

    fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn remove(&mut self, digest: &str) {
        let Some(known) = self.by_digest.remove(digest) else {
            return;
        };
        if let Some(by_use) = self.by_use.get_mut(&known.project) {
            by_use.remove(&known.used);
            if by_use.is_empty() {
                self.by_use.remove(&known.project);
            }
        }
    }
}

impl Contexts {
    /// Deletes implicit contexts of the project that hold one of these messages: what a client has deleted must not live
    /// on in what the gateway has made of it. Others that begin alike are made again when they are needed.
    pub(crate) async fn delete_beginnings_with(&self, project: &str, said: &[Message]) {
        if said.is_empty() {
            return;
        }
        for id in self.implicit.latest(project, BEGINNINGS_SEARCHED_MAX) {
            let Ok(content) = self.store.content(project, &id).await else {
                continue;
            };
            let turns = content.turns.iter().flat_map(|turn| &turn.messages);
            let mut messages = content
                .initial
                .iter()
                .chain(turns.map(|stored| &stored.message));
            if messages.any(|message| said.contains(message))
                && let Err(error) = self.delete(project, &id).await
            {
                // It may have gone meanwhile. If the store is away it ends by itself.
                tracing::debug!(context_id = %id, %error, "an implicit context was not deleted");
            }
        }
    }

    /// Moves the beginning of a request into a context, where the request or the model's configuration wants that. The
    /// request then names the context and holds the rest.
    pub(crate) async fn attach(
        self: &Arc<Self>,
        project: &str,
        model: &Arc<Model>,
        is_automatic: bool,
        request: &mut ChatRequest,
    ) -> Option<Attached> {
        if request.context_id.is_some()
            || request.messages.is_empty()
            || request.inexpressible().is_some()
        {
            return None;
        }
        let rules = model.backend.implicit();
        let is_native = request.original.is_some()
            && rules.speaks == request.original.as_ref().map(|original| original.dialect);
        let wanted = match wanted(request, rules.answers_bare) {
            // The upstream understands the request's own markers.
            Some(_) if is_native => return None,
            Some(wanted) => wanted,
            None if is_automatic => return self.attach_noticed(project, model, request).await,
            None => return None,
        };
        if model
            .backend
            .estimate_tokens(&request.messages[..wanted.messages])
            < TOKENS_MIN
        {
            return None;
        }
        let digests = digests(project, model, request);
        self.attach_at(project, model, request, &digests, wanted)
            .await
    }

    /// Keeps a whole request as what later ones begin with. Nothing is asked of it.
    pub(crate) async fn keep_beginning(
        self: &Arc<Self>,
        project: &str,
        model: &Arc<Model>,
        request: &mut ChatRequest,
    ) {
        let ttl_seconds = request.cache.automatic.flatten().unwrap_or(TTL_SECONDS);
        let wanted = Wanted {
            messages: request.messages.len(),
            ttl_seconds: ttl_seconds.clamp(1, TTL_SECONDS_MAX),
            origin: Origin::Marker,
        };
        let digests = digests(project, model, request);
        self.attach_at(project, model, request, &digests, wanted)
            .await;
    }

    /// Continues from what many requests begin with, once it is known to pay.
    async fn attach_noticed(
        self: &Arc<Self>,
        project: &str,
        model: &Arc<Model>,
        request: &mut ChatRequest,
    ) -> Option<Attached> {
        let last = request.messages.len() - 1;
        let digests = digests(project, model, request);
        let now = self.now();
        let mut wanted = None;
        for messages in (1..=last).rev().take(SEEN_PER_REQUEST_MAX) {
            let known = self.implicit.note(&digests[messages], now);
            if wanted.is_none() {
                wanted = match (self.living(project, &digests[messages]).await, known) {
                    (Some(_), _) => Some((messages, None)),
                    (None, Some(seen)) => Some((messages, Some(seen))),
                    (None, None) => None,
                };
            }
        }
        let (messages, seen) = wanted?;
        if let Some(seen) = seen {
            if model.backend.estimate_tokens(&request.messages[..messages]) < AUTO_TOKENS_MIN {
                return None;
            }
            // This request is one more than were seen, so that there were as many intervals as requests before.
            let hours = ((now - seen.first).max(1_000) as f64) / 3_600_000.0;
            let per_hour = f64::from(seen.times) / hours;
            let content = prefix_content(project, request, messages, 0, now);
            let prefix = model.backend.prepare(content).await.ok()?;
            if !pays(model, &prefix, per_hour) {
                return None;
            }
        }
        let wanted = Wanted {
            messages,
            ttl_seconds: TTL_SECONDS,
            origin: Origin::Automatic,
        };
        self.attach_at(project, model, request, &digests, wanted)
            .await
    }

    async fn attach_at(
        self: &Arc<Self>,
        project: &str,
        model: &Arc<Model>,
        request: &mut ChatRequest,
        digests: &[Digest],
        wanted: Wanted,
    ) -> Option<Attached> {
        let Wanted {
            messages,
            ttl_seconds,
            origin,
        } = wanted;
        let before = |from: usize| (1..from).rev().take(LOOKBACK_MESSAGES);
        let attached = |made, is_held| Attached {
            origin,
            made,
            is_held,
        };

        // One at a time makes it; the others find it.
        let lock = ContextId::new(0, first_half(&digests[messages]));
        let _making = self.making.lock(&lock).await;
        if let Some((id, _)) = self.living(project, &digests[messages]).await {
            take_over(request, id, messages);
            return Some(attached(None, false));
        }
        let mut continued = 0;
        let mut root = None;
        for earlier in before(messages) {
            let Some((id, tokens)) = self.living(project, &digests[earlier]).await else {
                continue;
            };
            // A copy made whole costs its whole price again, which a few more messages are not worth.
            let more = model
                .backend
                .estimate_tokens(&request.messages[earlier..messages]);
            if model.backend.implicit().copies_whole && u64::from(more) < tokens {
                take_over(request, id, earlier);
                return Some(attached(None, false));
            }
            continued = earlier - 1;
            root = self.root_of(project, id).await;
            break;
        }
        match self
            .create_implicit(
                project,
                model,
                request,
                &digests[messages],
                messages,
                continued,
                root,
                ttl_seconds,
            )
            .await
        {
            Ok((created, is_held)) => {
                let written = created
                    .context
                    .prefix_tokens
                    .saturating_sub(created.resident_tokens);
                take_over(request, created.context.id, messages);
                Some(attached(Some(written), is_held))
            }
            Err(error) => {
                tracing::debug!(kind = ?error.kind, "a marked prefix is not kept");
                None
            }
        }
    }

    /// The context with which the line of contexts began that this one continues.
    async fn root_of(&self, project: &str, id: ContextId) -> Option<ContextId> {
        let context = self.read(project, &id).await.ok()?;
        Some(context.forked_from.map_or(id, |(root, _)| root))
    }

    /// The context that holds exactly this, with some life left.
    async fn living(&self, project: &str, digest: &Digest) -> Option<(ContextId, u64)> {
        let (id, tokens) = self.implicit.find(&word(digest))?;
        let context = self.read(project, &id).await.ok()?;
        (context.expires_at - MARGIN_MS > self.now()).then_some((id, tokens))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is one fact the caller alone knows"
    )]
    async fn create_implicit(
        self: &Arc<Self>,
        project: &str,
        model: &Arc<Model>,
        request: &ChatRequest,
        digest: &Digest,
        messages: usize,
        continued: usize,
        root: Option<ContextId>,
        ttl_seconds: u32,
    ) -> Result<(Created, bool), ApiError> {
        let now = self.now();
        let content = prefix_content(project, request, messages, continued, now);
        let (initial, history) = (content.initial.clone(), content.history.clone());
        let prefix = model.backend.prepare(content).await?;
        let history_tokens: u64 = prefix
            .history_tokens
            .iter()
            .map(|tokens| u64::from(*tokens))
            .sum();
        let create = CreateContext {
            model: request
                .model
                .clone()
                .unwrap_or_else(|| model.entry.name.clone()),
            messages: initial,
            mode: Some(ContextMode::CommonPrefix),
            ttl_seconds: Some(u64::from(ttl_seconds)),
            truncation: None,
            tools: request.tools.clone(),
            tool_choice: request.tool_choice.clone(),
            display_name: None,
            metadata: Default::default(),
            policy: CachePolicy {
                warm: Warm::Lazy,
                on_too_small: Some(OnTooSmall::Replay),
                ..CachePolicy::default()
            },
        };
        // The dialect's own rules for such a prefix, whatever those of the model's contexts are.
        let profile = Profile {
            ttl_min_seconds: 1,
            ttl_max_seconds: TTL_SECONDS_MAX,
            ..Profile::of(ProfileKind::Native, model.entry.profile.window_tokens)
        };
        let context = Context::new(
            &create,
            CreateSurface::OpenAi,
            &profile,
            project,
            &model.entry.name,
            new_id(now),
            prefix.tokens.saturating_sub(history_tokens),
            now,
        )?;
        let turns = (1..)
            .zip(history.into_iter().zip(&prefix.history_tokens))
            .map(|(number, (message, tokens))| Turn {
                number,
                messages: vec![StoredMessage {
                    message,
                    tokens: *tokens,
                }],
                committed_at: now,
            })
            .collect();
        let content = ContextContent {
            initial: create.messages,
            turns,
        };
        let context = Context {
            turn_count: u32::try_from(content.turns.len()).unwrap_or(u32::MAX),
            prefix_tokens: prefix.tokens,
            implicit: Some(word(digest)),
            forked_from: root.map(|root| (root, u32::try_from(continued).unwrap_or(u32::MAX))),
            ..context
        };
        let is_held = model.backend.implicit().answers_bare;
        let created = self
            .establish(model, context, content, prefix, &Entry::none())
            .await?;
        self.implicit.insert(&LivingContext::from(&created.context));
        Ok((created, is_held))
    }

    /// Makes room within a project's limits; `false`: there is nothing that may go.
    pub(super) async fn evict_oldest(&self, project: &str) -> bool {
        let Some(id) = self.implicit.oldest(project) else {
            return false;
        };
        match self.read(project, &id).await {
            Ok(context) => {
                if self.store.delete(project, &id, self.now()).await.is_err() {
                    return false;
                }
                self.forget(&context);
                true
            }
            // Another replica has removed it.
            Err(error) if error.kind == ErrorKind::ContextNotFound => {
                self.implicit.remove_all(&HashSet::from([id.clone()]));
                self.living.remove(&id);
                true
            }
            Err(_) => false,
        }
    }
}

/// What the request wants held, by its own markers.
fn wanted(request: &ChatRequest, answers_bare: bool) -> Option<Wanted> {
    let cache = &request.cache;
    let marked = cache.points.iter().rfind(|point| point.messages > 0);
    let (messages, ttl_seconds, origin) = match (marked, cache.automatic) {
        (Some(point), None) => (point.messages, point.ttl_seconds, Origin::Marker),
        (_, Some(ttl_seconds)) if cache.key.is_some() => {
            (last_question(&request.messages), ttl_seconds, Origin::Key)
        }
        (_, Some(ttl_seconds)) => (request.messages.len(), ttl_seconds, Origin::Marker),
        (None, None) => return None,
    };
    let messages = match messages.min(request.messages.len()) {
        // A request has to say something of its own where the backend needs that.
        whole
            if whole == request.messages.len()
                && !(answers_bare && ends_with_question(request)) =>
        {
            last_question(&request.messages)
        }
        part => part,
    };
    (messages > 0).then(|| Wanted {
        messages,
        ttl_seconds: ttl_seconds.unwrap_or(TTL_SECONDS).clamp(1, TTL_SECONDS_MAX),
        origin,
    })
}

fn ends_with_question(request: &ChatRequest) -> bool {
    request
        .messages
        .last()
        .is_some_and(|message| matches!(message.role, Role::User | Role::Tool))
}

/// Where the run of messages begins that asks for the next answer.
fn last_question(messages: &[Message]) -> usize {
    let asked = messages
        .iter()
        .rev()
        .take_while(|message| matches!(message.role, Role::User | Role::Tool))
        .count();
    messages.len() - asked.max(1)
}

/// The digests of the request's beginnings: number `n` covers `n` messages.
fn digests(project: &str, model: &Model, request: &ChatRequest) -> Vec<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut feed = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
        *hasher.finalize().as_bytes()
    };
    feed(project.as_bytes());
    feed(model.entry.name.as_bytes());
    feed(&json(&request.tools));
    let first = feed(&match model.backend.implicit().copies_whole {
        // Copies of such a kind fix the choice as well.
        true => json(&request.tool_choice),
        false => Vec::new(),
    });
    std::iter::once(first)
        .chain(request.messages.iter().map(|message| feed(&json(message))))
        .collect()
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn word(digest: &Digest) -> String {
    data_encoding::BASE64URL_NOPAD.encode(digest)
}

fn first_half(digest: &Digest) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

fn prefix_content(
    project: &str,
    request: &ChatRequest,
    messages: usize,
    continued: usize,
    now: UnixMillis,
) -> PrefixContent {
    PrefixContent {
        project: project.to_owned(),
        initial: request.messages[..1].to_vec(),
        history: request.messages[1..messages].to_vec(),
        previous_history: continued,
        tools: request.tools.clone(),
        tool_choice: request.tool_choice.clone(),
        rendered_at: rendered_at(now),
    }
}

fn take_over(request: &mut ChatRequest, id: ContextId, messages: usize) {
    request.messages.drain(..messages);
    request.tools.clear();
    request.context_id = Some(id);
}

/// Whether so many requests an hour pay for a copy, at the upstream that is asked first. Where nothing has a price, time
/// alone is saved, and that always pays.
fn pays(model: &Model, prefix: &PreparedPrefix, per_hour: f64) -> bool {
    let turn = TurnSize {
        question_tokens: 200,
        answer_tokens: 200,
    };
    let estimates = model.backend.estimates(prefix, TTL_SECONDS, turn);
    let Some(first) = estimates.first() else {
        return false;
    };
    if first.reason.is_some() {
        return false;
    }
    match &first.money {
        None => true,
        Some((_, estimate)) => estimate
            .pays_from_turns_per_hour
            .and_then(|turns| f64::try_from(turns).ok())
            .is_some_and(|turns| per_hour >= turns),
    }
}
