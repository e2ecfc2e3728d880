//! OpenAI Responses, and Ark with its explicit caching, towards upstreams. [`client`] is the side towards clients.
//!
//! Both take the conversation as `input` items, system texts included (`instructions` is never used: OpenAI does not
//! carry it over to the next turn, and Ark refuses it beside caching). What differs:
//!
//! - **OpenAI** keeps nothing (`store: false`) and caches at breakpoints on content blocks. Blocks of assistant messages
//!   can't carry one, so a marker goes on the last block before the wanted place that can. With a context the mode is
//!   `explicit`: the provider's own breakpoint at the end of the newest message would be paid for and never read.
//! - **Ark** has handles: ids of responses that were made with `caching` and `store`. The prefix is one
//!   (`caching.prefix`, which makes no answer), and so is every answer that a session is to be continued from. A chat
//!   with a handle always says `caching: {"type": "enabled"}`, whether it is continued or not, because that is the only
//!   form documented to read the cache (facts 2.5b); its answer is then stored, too, so an answer that nothing continues
//!   from should be dropped by its [`crate::upstream::AnswerEnd::response_id`]. Without a handle nothing is asked of the
//!   cache but by a [`crate::upstream::Chain`], and the provider's implicit caching is left alone. Ark refuses fields it
//!   does not know, so nothing of OpenAI's caching is ever sent there.
//!
//! Written rules for what differs from Chat Completions:
//! - `stop`, `n` above 1, penalties and `logit_bias` are refused, on Ark `logprobs` and images in results of tools, too;
//!   `seed`, `user` and `name` are left out.
//! - Reasoning of earlier answers goes back to OpenAI with the seal that it gave (`encrypted_content`, asked for of models
//!   that reason); to Ark, whose models do not read it, never.
//! - A level of reasoning is `reasoning.effort`, in the client's own word where it is OpenAI's; Ark's switch is
//!   `thinking`.
//! - Files are `input_file`, of users and in results of tools; on Ark PDFs of users only, beside sound and video.
//! - `strict` of a tool is false unless the client set it: the Responses API would otherwise take it for true. Ark does
//!   not have it.
//! - Of unknown fields `verbosity` becomes, on OpenAI, `text.verbosity`, while `service_tier` and `safety_identifier`
//!   are passed on. All others are left out.
//! - `thinking` must be the same on all turns of a handle; a prefix is made without it. A `thinking` that Ark then
//!   refuses is told as [`crate::upstream::FailureKind::MarkerRefused`]: without the cache it works.
//! - `tools` are part of a handle, and beside one Ark takes no others and no `json_schema`: both are refused by name.

mod ark;
pub mod client;
mod error;
mod items;
mod openai;
mod options;
mod original;
mod stream;
#[cfg(test)]
mod tests;
mod usage;

pub use ark::ArkResponses;
pub use openai::OpenAiResponses;

/// Where responses are made.
const PATH: &str = "/responses";
