//! OpenAI Responses and Ark's, towards clients (facts 2.1, 2.5).
//!
//! What a request continues (`previous_response_id`, `conversation`) is only named here: the caller finds the earlier
//! turns and puts them in with [`Request::after`]. Instructions are a system message before everything else and not part
//! of what later turns remember.
//!
//! Written rules for what the internal form can't hold:
//! - Reasoning, messages and function calls of the assistant that follow each other become one message. Its thinking text
//!   is that of all its reasoning items (their content, else their summary), and the last one's encrypted content is its
//!   seal. Reasoning that no message and no call follows is left out.
//! - Seals of other upstreams go to the client as text with their maker's name and come back as theirs.
//! - A refusal that comes back is text to the model. Towards Ark's clients, whose types have no refusals, it is text, too.
//! - `strict` of a tool stays unset where the request does not say; the answer then says false.
//! - `allowed_tools` leaves the other tools out of what the model is shown.
//! - Left out: `max_tool_calls`, `truncation`, `stream_options`, `include` but for log probabilities, `background_options`
//!   and `image`, annotations and log probabilities of earlier answers, `phase`, a schema's description, and fields that
//!   the gateway does not know. To an upstream of this dialect all of these go through, as long as the request is
//!   stateless: it names nothing that the gateway keeps, and nothing of it is to be stored.
//! - For upstreams of this dialect only, refused with the field's name by all others and beside state: tools that OpenAI
//!   runs itself and their items, custom tools, files and items by id, prompt templates, compaction, moderation, warming
//!   the provider's cache without an answer.
//! - Refused by all: `background`.
//!
//! An answer is one choice. Item ids are made of the response's id, so that an answer written twice is the same.
//! Ark's own clients fail on words, events and nulls that they do not know, so they are sent none. To its client for Go,
//! and to older ones of OpenAI's, a comment in a stream is an event without data: a quiet stream is kept open with events.
//! Neither surface ends a stream with `[DONE]`: all readers end at the last event or with the connection.

mod answer;
mod echo;
mod events;
mod input;
mod object;
mod options;
mod output;
mod parts;
mod request;
mod resources;
mod stream;

pub use answer::Writer;
pub use echo::Echo;
pub use object::{ResponseHead, output_items, response_object};
pub use request::{Caching, Request, decode_request};
pub use resources::{
    NewConversation, decode_conversation, decode_items, decode_metadata, encode_conversation,
    encode_conversation_deleted, encode_deleted, encode_input_tokens, encode_items,
    messages_of_items, page, with_ids,
};

#[cfg(test)]
mod tests;

/// Whose clients are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// `/v1`: OpenAI's.
    OpenAi,
    /// `/api/v3`: Ark's.
    Ark,
}
