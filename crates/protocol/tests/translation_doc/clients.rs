//! From clients into the internal form, and from there to each upstream.

use std::collections::BTreeSet;

use bytes::Bytes;
use holdfast_protocol::chat::{ChatRequest, ClientDialect};
use holdfast_protocol::dialect::responses::client::{Caching, Surface};
use holdfast_protocol::dialect::{self, anthropic, gemini, openai, responses};
use holdfast_protocol::error::ApiError;
use serde_json::{Value, json};

use crate::difference::{Leaf, added, lessened, shown};
use crate::fields::{self, Row, extended};
use crate::internal::{self, GATEWAYS_OWN};
use crate::reasons::clients::{LEFT_OUT, REPEATED, Why, why};
use crate::upstreams::{Place, UPSTREAMS, Upstream, param};
use crate::{code, heading, row};

/// A dialect of clients with all that can be said in it.
pub(crate) struct Client {
    pub(crate) dialect: ClientDialect,
    title: &'static str,
    /// The smallest request.
    pub(crate) base: fn() -> Value,
    pub(crate) rows: fn() -> Vec<Row>,
}

pub(crate) const CLIENTS: [Client; 4] = [
    Client {
        dialect: ClientDialect::OpenAi,
        title: "OpenAI Chat Completions",
        base: fields::openai::base,
        rows: fields::openai::rows,
    },
    Client {
        dialect: ClientDialect::Responses,
        title: "OpenAI Responses",
        base: fields::responses::base,
        rows: fields::responses::rows,
    },
    Client {
        dialect: ClientDialect::Anthropic,
        title: "Anthropic Messages",
        base: fields::anthropic::base,
        rows: fields::anthropic::rows,
    },
    Client {
        dialect: ClientDialect::Gemini,
        title: "Gemini",
        base: fields::gemini::base,
        rows: fields::gemini::rows,
    },
];

/// The most upstreams that are named; of more the others are.
const NAMED_MAX: usize = 4;
/// The time of all requests: Ark's ends of life are compared with it.
const NOW: i64 = 1_800_000_000_000;

/// A request as it was read.
pub(crate) struct Read {
    pub(crate) chat: ChatRequest,
    /// The internal form, and what is read beside it.
    pub(crate) internal: Value,
    /// What is only told again: in the answer, and in lists.
    repeated: String,
}

impl Client {
    pub(crate) fn read(&self, body: &Value) -> Result<Read, ApiError> {
        let body = Bytes::from(body.to_string());
        let (chat, beside, repeated) = match self.dialect {
            ClientDialect::OpenAi => (openai::decode_request(&body)?, json!({}), String::new()),
            ClientDialect::Responses => {
                let responses::client::Request {
                    chat,
                    instructions_end: _,
                    input,
                    previous_response_id,
                    conversation,
                    store,
                    expires_at,
                    caching,
                    echo,
                } = responses::client::decode_request(&body, Surface::OpenAi, NOW)?;
                let caching = caching.map(
                    |Caching { enabled, prefix }| json!({"enabled": enabled, "prefix": prefix}),
                );
                let beside = json!({
                    "previous_response_id": previous_response_id,
                    "conversation": conversation,
                    "store": store,
                    "expires_at": expires_at,
                    "caching": caching,
                });
                (chat, beside, format!("{input:?} {echo:?}"))
            }
            ClientDialect::Anthropic => {
                let anthropic::client::Request {
                    chat,
                    writes_for_hour,
                } = anthropic::client::decode_request(&body)?;
                (
                    chat,
                    json!({"writes_for_hour": writes_for_hour}),
                    String::new(),
                )
            }
            ClientDialect::Gemini => {
                let gemini::client::Request {
                    chat,
                    shows_thoughts,
                } = gemini::client::decode_request(&body, "models/m", false)?;
                (
                    chat,
                    json!({"shows_thoughts": shows_thoughts}),
                    String::new(),
                )
            }
        };
        Ok(Read {
            internal: extended(internal::fields(&chat), internal::said(beside)),
            chat,
            repeated,
        })
    }

    /// The bodies without a row's field and with it.
    pub(crate) fn bodies(&self, row: &Row) -> (Value, Value) {
        let base = extended((self.base)(), row.base.clone());
        let body = extended(base.clone(), row.body.clone());
        (base, body)
    }
}

/// What becomes of a client's field.
pub(crate) enum Fate {
    /// Part of the internal form.
    Internal {
        added: Vec<Leaf>,
        /// Lists that have become shorter.
        lessened: BTreeSet<String>,
    },
    /// An upstream of the client's own dialect gets it, and nobody else.
    SameDialectOnly,
    /// An error; the field it names.
    Refused(Option<String>),
    /// Told again, and not acted on.
    Repeated,
    /// Not even that.
    LeftOut,
}

pub(crate) fn fate(client: &Client, row: &Row) -> Fate {
    let (base, body) = client.bodies(row);
    let base = client
        .read(&base)
        .unwrap_or_else(|error| panic!("{}: the request without it is wrong: {error}", row.name));
    let read = match client.read(&body) {
        Ok(read) => read,
        Err(error) => return Fate::Refused(param(&error)),
    };
    if read.chat.inexpressible().is_some() {
        return Fate::SameDialectOnly;
    }
    let added = added(&base.internal, &read.internal);
    if base.internal != read.internal {
        return Fate::Internal {
            added,
            lessened: lessened(&base.internal, &read.internal),
        };
    }
    match base.repeated == read.repeated {
        true => Fate::LeftOut,
        false => Fate::Repeated,
    }
}

pub(crate) fn tables() -> String {
    let mut text = String::new();
    for client in &CLIENTS {
        text.push_str(&format!("### {}\n\n", client.title));
        text.push_str(&heading(
            &["field", "becomes", "at upstreams"].map(str::to_owned),
        ));
        for field in (client.rows)() {
            let fate = fate(client, &field);
            let becomes = match &fate {
                Fate::Internal { added, lessened } => {
                    let (base, _) = client.bodies(&field);
                    let base = client.read(&base).unwrap().internal;
                    let mut places = shown(&base, added, added.iter().any(Leaf::is_said));
                    for list in lessened {
                        places.push_str(&format!(", fewer {}", code(list)));
                    }
                    places
                }
                Fate::SameDialectOnly => "upstream of the same dialect only".to_owned(),
                Fate::Refused(param) => match param
                    .as_ref()
                    .filter(|param| !field.name.contains(param.as_str()))
                {
                    Some(param) => format!("refused ({})", code(param)),
                    None => "refused".to_owned(),
                },
                Fate::Repeated => {
                    format!("repeated only: {}", reason(REPEATED, client, &field))
                }
                Fate::LeftOut => format!("left out: {}", reason(LEFT_OUT, client, &field)),
            };
            let exceptions = match fate {
                Fate::Internal { added, .. } if !is_gateways_own(&added) => {
                    exceptions(client, &field)
                }
                _ => String::new(),
            };
            text.push_str(&row(&[field.name.to_owned(), becomes, exceptions]));
        }
        text.push('\n');
    }
    text
}

pub(crate) fn is_gateways_own(added: &[Leaf]) -> bool {
    added
        .iter()
        .all(|leaf| GATEWAYS_OWN.contains(&leaf.path[0].as_str()))
}

// That there is one is for a test of its own, which names all that are missing.
fn reason(reasons: &[Why], client: &Client, field: &Row) -> &'static str {
    why(reasons, client.dialect, field.name).unwrap_or("?")
}

/// What becomes of a field at one upstream after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Sent,
    LeftOut,
    Refused,
}

/// Through both translations, in a request that names no context.
pub(crate) fn end(client: &Client, field: &Row, upstream: Upstream) -> End {
    let (base, body) = client.bodies(field);
    let base = client.read(&base).unwrap();
    let read = client.read(&body).unwrap();
    let speaks = dialect::upstream(upstream.dialect).speaks();
    let original = read.chat.original.as_ref();
    if original.is_some_and(|original| speaks == Some(original.dialect)) {
        return End::Sent;
    }
    let bodies = upstream
        .body(&base.chat, Place::Alone)
        .and_then(|base| Ok((base, upstream.body(&read.chat, Place::Alone)?)));
    let Ok((sent_base, sent)) = bodies else {
        return End::Refused;
    };
    let said = added(&base.internal, &read.internal);
    let sent = added(&sent_base, &sent);
    let is_lost = said.iter().any(Leaf::is_probe) && !sent.iter().any(Leaf::is_probe);
    match sent.is_empty() || is_lost {
        true => End::LeftOut,
        false => End::Sent,
    }
}

/// Where a field does not arrive, and how it ends there.
fn exceptions(client: &Client, field: &Row) -> String {
    let ends = UPSTREAMS.map(|upstream| (code(&upstream.word()), end(client, field, upstream)));
    let names = |is_meant: &dyn Fn(End) -> bool| {
        let meant = ends.iter().filter(|(_, end)| is_meant(*end));
        meant.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    let of = |end: End, word: &str| {
        let (these, others) = (names(&|found| found == end), names(&|found| found != end));
        match (these.len(), others.len()) {
            (0, _) => None,
            (_, 0) => Some(format!("{word} by all")),
            (length, _) if length > NAMED_MAX => {
                Some(format!("{word} by all but {}", others.join(", ")))
            }
            _ => Some(format!("{word} by {}", these.join(", "))),
        }
    };
    let parts = [of(End::LeftOut, "left out"), of(End::Refused, "refused")];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
