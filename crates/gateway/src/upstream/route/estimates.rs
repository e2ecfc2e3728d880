//! What a context would cost at an upstream, before anything is sent there.

use holdfast_protocol::price::{Holding, Workload};
use holdfast_protocol::provider::Caching;
use holdfast_protocol::upstream::Markers;

use crate::backend::{PrefixEstimate, PreparedPrefix, TurnSize};
use crate::upstream::{Shared, Target};

/// At `target`, for a context of `ttl_seconds`.
pub(super) fn of(
    shared: &Shared,
    target: &Target,
    prefix: &PreparedPrefix,
    ttl_seconds: u32,
    turn: TurnSize,
) -> PrefixEstimate {
    let cache = &target.rules.cache;
    let tier_seconds = cache.tier_for(ttl_seconds);
    let (caching, guarantee, holding) = match cache.caching {
        Caching::Handle => ("handle", "explicit", Some(Holding::Handle)),
        Caching::Breakpoint => (
            "breakpoint",
            "explicit",
            Some(Holding::Breakpoint {
                lifetime_seconds: tier_seconds.unwrap_or(ttl_seconds),
                is_sliding: cache.is_sliding,
            }),
        ),
        Caching::Automatic => (
            "automatic",
            "best_effort",
            Some(Holding::Automatic {
                lifetime_seconds: tier_seconds,
            }),
        ),
        Caching::Replay => ("replay", "none", None),
    };
    let inexpressible = prefix
        .upstream()
        .and_then(|prefix| prefix.encode(target, Markers::default(), None))
        .err();
    let reason = match inexpressible {
        Some(error) => Some(error.message),
        None if holding.is_none() => Some("no_cache".to_owned()),
        None if prefix.tokens < u64::from(cache.min_tokens) => Some("below_minimum".to_owned()),
        None => None,
    };
    let money = holding.and_then(|holding| {
        let price = target.price(shared)?;
        let workload = Workload {
            prefix_tokens: prefix.tokens,
            question_tokens: turn.question_tokens,
            answer_tokens: turn.answer_tokens,
            life_seconds: Some(u64::from(ttl_seconds)),
        };
        let estimate = price.price.estimate(holding, &workload);
        Some((price.currency.to_string(), estimate))
    });
    PrefixEstimate {
        upstream: Some(target.name().to_owned()),
        provider: Some(target.upstream.options.provider.name),
        model: Some(target.model.clone()),
        caching,
        guarantee,
        tokens: prefix.tokens,
        source: "estimate",
        min_tokens: cache.min_tokens,
        reason,
        money,
    }
}
