//! What the cache did, as the gateway's own field `context_cache` says it in every dialect that can carry it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::price::Decimal;
use crate::usage::{Money, Receipt};

/// What the context did for a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ContextCacheBody {
    /// `hit`, `rebuilt`, `miss` or `degraded`.
    #[schema(example = "hit")]
    pub status: &'static str,
    /// Why, where it is not a plain hit; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where the embedded engine found it: `kv`, `ram` or `disk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<&'static str>,
    /// The context used.
    pub context_id: String,
    /// Tokens of the stored prefix that this request continued.
    pub prefix_tokens: u64,
    /// Of these, tokens that were not computed again.
    pub cached_tokens: u64,
    /// Tokens newly added to the context.
    pub written_tokens: u64,
    /// Tokens saved by the context: the same as `cached_tokens`.
    pub saved_tokens: u64,
    /// Who says so: `provider`, `engine` or `estimate`.
    #[schema(example = "engine")]
    pub source: &'static str,
    /// Milliseconds to the first token, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// The upstream that answered; absent on the embedded engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// `marker`, `key` or `automatic`: what brought the context about; absent if a client created it by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<&'static str>,
    /// What the request cost, a decimal number; absent where no price is known, and on the embedded engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "0.0021")]
    pub cost: Option<String>,
    /// By how much that is less than without any cache, a decimal number; negative where the cache cost more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "0.0187")]
    pub saved: Option<String>,
    /// ISO 4217 code of the amounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "USD")]
    pub currency: Option<String>,
    /// Who says what it cost: `provider`, or `estimate` for counted tokens times catalog prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub money_source: Option<&'static str>,
}

/// The receipt as clients are told.
pub(super) fn context_cache(receipt: &Receipt) -> ContextCacheBody {
    let money = |read: fn(&Money) -> Decimal| {
        let amount = receipt.money.as_ref().map(read);
        amount.map(|amount| amount.normalize().to_string())
    };
    ContextCacheBody {
        status: receipt.status.as_str(),
        reason: receipt.reason.clone(),
        tier: receipt.tier.map(|tier| tier.as_str()),
        context_id: receipt.context_id.to_string(),
        prefix_tokens: receipt.prefix_tokens,
        cached_tokens: receipt.cached_tokens,
        written_tokens: receipt.written_tokens,
        saved_tokens: receipt.cached_tokens,
        source: receipt.source.as_str(),
        first_token_ms: receipt.first_token_ms,
        upstream: receipt.upstream.clone(),
        origin: receipt.origin.map(|origin| origin.as_str()),
        cost: money(|money| money.cost),
        saved: money(|money| money.saved),
        currency: receipt.money.as_ref().map(|money| money.currency.clone()),
        money_source: receipt.money.as_ref().map(|money| money.source.as_str()),
    }
}
