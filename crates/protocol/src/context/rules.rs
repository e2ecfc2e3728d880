//! The rules of contract sections 1.3 and 1.4 and of the profile table, applied when a context is made or changed.

use super::{
    Context, ContextContent, ContextId, ContextMode, CreateContext, CreateSurface, Expiry,
    ForkContext, Profile, ProfileKind, Truncation, TruncationKind, TruncationRequest,
};
use crate::UnixMillis;
use crate::compose::messages_to_drop;
use crate::error::{ApiError, ErrorFacts, ErrorKind};

const WEEK_SECONDS: u32 = 604_800;
const DAY_SECONDS: u32 = 86_400;
const HOUR_SECONDS: u32 = 3_600;

/// Ark's default capacity of the remembered history.
const LAST_HISTORY_TOKENS_DEFAULT: u32 = 4_096;
/// Ark gives the open interval (0, 32768).
const LAST_HISTORY_TOKENS_MAX: u32 = 32_767;

/// What the seed's sister page shows for a session whose request names no strategy.
const TRUNCATION_DEFAULT: Truncation = Truncation::RollingTokens {
    rolling_tokens: true,
    max_window_tokens: None,
    rolling_window_tokens: None,
};

impl ContextMode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ContextMode::CommonPrefix => "common_prefix",
            ContextMode::Session => "session",
        }
    }
}

impl ProfileKind {
    /// The word in config and in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            ProfileKind::Gemini => "gemini",
            ProfileKind::Ark => "ark",
            ProfileKind::Native => "native",
        }
    }

    fn default_mode(self, surface: CreateSurface) -> ContextMode {
        match (self, surface) {
            (ProfileKind::Gemini, _)
            | (ProfileKind::Native, CreateSurface::OpenAi | CreateSurface::Google) => {
                ContextMode::CommonPrefix
            }
            (ProfileKind::Ark, _) | (ProfileKind::Native, CreateSurface::Ark) => {
                ContextMode::Session
            }
        }
    }

    fn expiry(self, mode: ContextMode) -> Expiry {
        match (self, mode) {
            (ProfileKind::Gemini, ContextMode::CommonPrefix) => Expiry::Fixed,
            _ => Expiry::Sliding,
        }
    }
}

impl Profile {
    /// This model's rules where a context follows those of `kind`, whatever the model's own are.
    #[must_use]
    pub fn of_kind(&self, kind: ProfileKind) -> Self {
        if self.kind == kind {
            return self.clone();
        }
        Profile {
            min_context_tokens: self.min_context_tokens,
            ..Profile::of(kind, self.window_tokens)
        }
    }

    /// The rules of `kind`: default ttl and its range, with a largest ttl of a week and no minimum size.
    pub fn of(kind: ProfileKind, window_tokens: u32) -> Self {
        let (ttl_default_seconds, ttl_min_seconds) = match kind {
            ProfileKind::Gemini | ProfileKind::Native => (HOUR_SECONDS, 1),
            ProfileKind::Ark => (DAY_SECONDS, HOUR_SECONDS),
        };
        Profile {
            kind,
            ttl_default_seconds,
            ttl_min_seconds,
            ttl_max_seconds: WEEK_SECONDS,
            min_context_tokens: 0,
            window_tokens,
        }
    }

    /// The ttl in force, seconds: the default where the request gives none.
    ///
    /// # Errors
    /// Out of the profile's range.
    pub fn checked_ttl(&self, requested_seconds: Option<u64>) -> Result<u32, ApiError> {
        let Some(requested) = requested_seconds else {
            return Ok(self.ttl_default_seconds);
        };
        u32::try_from(requested)
            .ok()
            .filter(|ttl| (self.ttl_min_seconds..=self.ttl_max_seconds).contains(ttl))
            .ok_or_else(|| {
                ApiError::invalid(
                    "ttl",
                    format!(
                        "is {requested} but must be {} to {} seconds for this model",
                        self.ttl_min_seconds, self.ttl_max_seconds
                    ),
                )
            })
    }
}

impl Context {
    /// Applies the profile to a create request: effective mode, ttl, expiry and truncation.
    ///
    /// `initial_tokens` is the prefix's size by the model's tokenizer.
    ///
    /// # Errors
    /// `ttl` out of range, truncation with `common_prefix` or out of its bounds, prefix below the minimum or beyond
    /// the window.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one fact the caller alone knows"
    )]
    pub fn new(
        create: &CreateContext,
        surface: CreateSurface,
        profile: &Profile,
        project: &str,
        model: &str,
        id: ContextId,
        initial_tokens: u64,
        now: UnixMillis,
    ) -> Result<Self, ApiError> {
        let mode = create
            .mode
            .unwrap_or_else(|| profile.kind.default_mode(surface));
        let ttl_seconds = profile.checked_ttl(create.ttl_seconds)?;
        let truncation =
            effective_truncation(mode, create.truncation.as_ref(), profile.window_tokens)?;
        check_size(initial_tokens, profile)?;
        Ok(Context {
            id,
            project: project.to_owned(),
            model: model.to_owned(),
            requested_model: create.model.clone(),
            mode,
            profile: profile.kind,
            ttl_seconds,
            expiry: profile.kind.expiry(mode),
            created_at: now,
            expires_at: after_seconds(now, ttl_seconds),
            truncation,
            tools: create.tools.clone(),
            tool_choice: create.tool_choice.clone(),
            display_name: create.display_name.clone(),
            metadata: create.metadata.clone(),
            policy: create.policy,
            initial_tokens,
            prefix_tokens: initial_tokens,
            turn_count: 0,
            dropped_messages: 0,
            version: 1,
            forked_from: None,
            implicit: None,
            made_by: None,
        })
    }

    /// A new context that holds this one's initial messages and its turns up to `fork.at_turn`, and then goes its own
    /// way. `content` is this context's; the child's is [`ContextContent::first_turns`] of the child's `turn_count`.
    ///
    /// A fork from the last turn remembers what the parent remembers. A fork from an earlier turn also has back what
    /// truncation dropped since, as far as the strategy leaves room for it.
    ///
    /// # Errors
    /// `at_turn` beyond the last turn, `ttl` out of range.
    pub fn fork(
        &self,
        content: &ContextContent,
        fork: &ForkContext,
        profile: &Profile,
        id: ContextId,
        now: UnixMillis,
    ) -> Result<Context, ApiError> {
        let at_turn = fork.at_turn.unwrap_or(self.turn_count);
        if at_turn > self.turn_count {
            return Err(ApiError::invalid(
                "at_turn",
                format!(
                    "is {at_turn} but the context has {} finished turns",
                    self.turn_count
                ),
            ));
        }
        let mode = fork.mode.unwrap_or(ContextMode::Session);
        // An inherited ttl stands even if the configured range has changed since the parent was made.
        let ttl_seconds = match fork.ttl_seconds {
            Some(requested) => profile.checked_ttl(Some(requested))?,
            None => self.ttl_seconds,
        };
        let truncation = self.truncation.unwrap_or(TRUNCATION_DEFAULT);

        let kept: Vec<_> = content
            .turns
            .iter()
            .filter(|turn| turn.number <= at_turn)
            .flat_map(|turn| turn.messages.iter())
            .collect();
        let dropped = if at_turn == self.turn_count {
            self.dropped_messages as usize
        } else {
            messages_to_drop(
                &truncation,
                self.initial_tokens,
                &kept,
                profile.window_tokens,
                0,
            )
        };
        let history_tokens: u64 = kept
            .iter()
            .skip(dropped)
            .map(|stored| u64::from(stored.tokens))
            .sum();

        Ok(Context {
            id,
            mode,
            ttl_seconds,
            expiry: self.profile.expiry(mode),
            created_at: now,
            expires_at: after_seconds(now, ttl_seconds),
            truncation: (mode == ContextMode::Session).then_some(truncation),
            prefix_tokens: self.initial_tokens + history_tokens,
            turn_count: at_turn,
            dropped_messages: u32::try_from(dropped).unwrap_or(u32::MAX),
            version: 1,
            forked_from: Some((self.id.clone(), at_turn)),
            implicit: None,
            made_by: None,
            ..self.clone()
        })
    }

    /// Sets a new ttl, which starts at `now` for either kind of expiry.
    ///
    /// # Errors
    /// Out of the profile's range.
    pub fn set_ttl(
        &mut self,
        ttl_seconds: u64,
        profile: &Profile,
        now: UnixMillis,
    ) -> Result<(), ApiError> {
        self.ttl_seconds = profile.checked_ttl(Some(ttl_seconds))?;
        self.expires_at = after_seconds(now, self.ttl_seconds);
        Ok(())
    }

    /// Whether it is gone for clients.
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        now >= self.expires_at
    }

    /// The expiry after a use at `now`: moved for sliding contexts, unchanged for fixed ones.
    pub fn expires_after_use(&self, now: UnixMillis) -> UnixMillis {
        match self.expiry {
            Expiry::Fixed => self.expires_at,
            Expiry::Sliding => self.expires_at.max(after_seconds(now, self.ttl_seconds)),
        }
    }
}

fn after_seconds(now: UnixMillis, seconds: u32) -> UnixMillis {
    now.saturating_add(i64::from(seconds) * 1000)
}

fn check_size(initial_tokens: u64, profile: &Profile) -> Result<(), ApiError> {
    let minimum = profile.min_context_tokens;
    if initial_tokens < u64::from(minimum) {
        // Clients in the field match on these fragments to fall back to plain chats.
        return Err(ApiError::new(
            ErrorKind::InvalidParameter,
            format!(
                "Cached content is too small. total_token_count={initial_tokens}, min_total_token_count={minimum}. \
                 Add messages, or send them with each chat instead."
            ),
        )
        .with_param("messages")
        .with_facts(ErrorFacts::TooSmall {
            tokens: Some(initial_tokens),
            min_tokens: Some(u64::from(minimum)),
        }));
    }
    if initial_tokens >= u64::from(profile.window_tokens) {
        return Err(
            ApiError::out_of_context(initial_tokens, profile.window_tokens).with_param("messages"),
        );
    }
    Ok(())
}

fn effective_truncation(
    mode: ContextMode,
    request: Option<&TruncationRequest>,
    window_tokens: u32,
) -> Result<Option<Truncation>, ApiError> {
    // An empty object says nothing and is as good as null.
    let request = request.filter(|request| **request != TruncationRequest::default());
    match (mode, request) {
        (ContextMode::CommonPrefix, None) => Ok(None),
        (ContextMode::CommonPrefix, Some(_)) => Err(ApiError::invalid(
            "truncation_strategy",
            "is for `mode` \"session\" only: a common_prefix context never changes",
        )),
        (ContextMode::Session, None) => Ok(Some(TRUNCATION_DEFAULT)),
        (ContextMode::Session, Some(request)) => match truncation_kind(request)? {
            TruncationKind::LastHistoryTokens => last_history(request).map(Some),
            TruncationKind::RollingTokens => rolling(request, window_tokens).map(Some),
        },
    }
}

/// Without `type` the keys decide, as long as they speak of one strategy.
fn truncation_kind(request: &TruncationRequest) -> Result<TruncationKind, ApiError> {
    if let Some(kind) = request.kind {
        return Ok(kind);
    }
    let speaks_of_rolling = request.rolling_tokens.is_some()
        || request.max_window_tokens.is_some()
        || request.rolling_window_tokens.is_some();
    match (request.last_history_tokens.is_some(), speaks_of_rolling) {
        (true, false) => Ok(TruncationKind::LastHistoryTokens),
        (false, _) => Ok(TruncationKind::RollingTokens),
        (true, true) => Err(ApiError::missing("truncation_strategy.type")),
    }
}

/// Keys of the other strategy are ignored.
fn last_history(request: &TruncationRequest) -> Result<Truncation, ApiError> {
    let last_history_tokens = request
        .last_history_tokens
        .unwrap_or(LAST_HISTORY_TOKENS_DEFAULT);
    if !(1..=LAST_HISTORY_TOKENS_MAX).contains(&last_history_tokens) {
        return Err(ApiError::invalid(
            "truncation_strategy.last_history_tokens",
            format!("is {last_history_tokens} but must be 1 to {LAST_HISTORY_TOKENS_MAX} tokens"),
        ));
    }
    Ok(Truncation::LastHistoryTokens {
        last_history_tokens,
    })
}

/// `0 < rolling_window_tokens < max_window_tokens < window`; keys of the other strategy are ignored.
fn rolling(request: &TruncationRequest, window_tokens: u32) -> Result<Truncation, ApiError> {
    if let Some(max_window) = request.max_window_tokens
        && !(2..window_tokens).contains(&max_window)
    {
        return Err(ApiError::invalid(
            "truncation_strategy.max_window_tokens",
            format!(
                "is {max_window} but must be greater than 1 and less than the model's window of \
                 {window_tokens} tokens"
            ),
        ));
    }
    let upper = request.max_window_tokens.unwrap_or(window_tokens);
    if let Some(rolling_window) = request.rolling_window_tokens
        && !(1..upper).contains(&rolling_window)
    {
        return Err(ApiError::invalid(
            "truncation_strategy.rolling_window_tokens",
            format!(
                "is {rolling_window} but must be greater than 0 and less than {} of {upper} tokens",
                if request.max_window_tokens.is_some() {
                    "`max_window_tokens`"
                } else {
                    "the model's window"
                }
            ),
        ));
    }
    Ok(Truncation::RollingTokens {
        rolling_tokens: request.rolling_tokens.unwrap_or(true),
        max_window_tokens: request.max_window_tokens,
        rolling_window_tokens: request.rolling_window_tokens,
    })
}
