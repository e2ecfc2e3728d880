//! From the internal form to upstreams.

use holdfast_protocol::chat::{ChatRequest, Message, Role};
use holdfast_protocol::compose::compose;
use holdfast_protocol::dialect;
use holdfast_protocol::error::ApiError;
use holdfast_protocol::provider::{Caching, ModelRules, UpstreamDialectName, by_name};
use holdfast_protocol::upstream::{ChatCall, HandleUse, Markers, PrefixParts};
use serde_json::Value;

use crate::difference::{Leaf, added, shown};
use crate::features::{Feature, GROUPS};
use crate::internal::fields;
use crate::reasons::{BESIDE_CONTEXT, LEFT_OUT, Why, why};
use crate::{code, heading, row};

/// An upstream dialect with a provider and a model that stand for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upstream {
    pub(crate) dialect: UpstreamDialectName,
    provider: &'static str,
    model: &'static str,
}

pub(crate) const UPSTREAMS: [Upstream; 7] = {
    use UpstreamDialectName::{
        Anthropic, ArkContext, ArkResponses, BedrockConverse, Gemini, OpenaiChat, OpenaiResponses,
    };
    const fn upstream(
        dialect: UpstreamDialectName,
        provider: &'static str,
        model: &'static str,
    ) -> Upstream {
        Upstream {
            dialect,
            provider,
            model,
        }
    }
    [
        upstream(OpenaiChat, "openai", "gpt-5.6"),
        upstream(OpenaiResponses, "openai", "gpt-5.6"),
        upstream(ArkResponses, "ark", "doubao-seed-2-1-pro-260915"),
        upstream(ArkContext, "ark", "ep-20260101000000-abcde"),
        upstream(Anthropic, "anthropic", "claude-sonnet-4-6"),
        upstream(Gemini, "gemini", "gemini-2.5-flash"),
        upstream(BedrockConverse, "bedrock", "anthropic.claude-sonnet-4-6"),
    ]
};

impl Upstream {
    /// The dialect as the configuration writes it.
    pub(crate) fn word(self) -> String {
        let word = serde_json::to_value(self.dialect).unwrap();
        word.as_str().unwrap().to_owned()
    }

    pub(crate) fn rules(self) -> ModelRules {
        (by_name(self.provider).unwrap().rules)(self.dialect, self.model)
    }

    /// The body of a chat; beside a context, with its handle where the dialect has handles.
    pub(crate) fn body(self, request: &ChatRequest, place: Place) -> Result<Value, ApiError> {
        let rules = self.rules();
        let dialect = dialect::upstream(self.dialect);
        let prefix = match place {
            Place::Alone => None,
            Place::Beside { has_tools } => Some(dialect.encode_prefix(
                &PrefixParts {
                    initial: &[
                        Message::text(Role::System, "Be brief."),
                        Message::text(Role::User, "One?"),
                        Message::text(Role::Assistant, "Two."),
                    ],
                    history: &[],
                    previous_history: 0,
                    tools: if has_tools { &request.tools } else { &[] },
                    markers: Markers::default(),
                    tenant_line: None,
                },
                &rules,
            )?),
        };
        let has_handle = prefix.is_some() && rules.cache.caching == Caching::Handle;
        let composed = compose(None, request.clone(), 1_000_000, 100)?;
        let call = dialect.encode_chat(&ChatCall {
            model: self.model,
            prefix: prefix.as_ref(),
            handle: has_handle.then_some(HandleUse {
                name: "handle-1",
                with_history: false,
            }),
            chain: None,
            composed: &composed,
            max_tokens: request.max_tokens,
            cache_key: None,
            salt: None,
            tier_seconds: None,
            previous_answer: None,
            rules: &rules,
        })?;
        Ok(serde_json::from_slice(&call.body.concat()).unwrap())
    }
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It names no context.
    Alone,
    /// It continues one, which has its tools or none.
    Beside { has_tools: bool },
}

/// What becomes of a feature at one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in the body, and where.
    Sent(String),
    /// An error; the field it names, if that is not the feature itself.
    Refused(Option<String>),
    /// The body is the same without it.
    LeftOut,
    /// There is no such thing for this dialect.
    Nothing,
}

/// The requests of a feature: without it and with it. `None`: there is no such thing for this dialect.
pub(crate) fn requests(
    feature: &Feature,
    dialect: UpstreamDialectName,
) -> Option<(ChatRequest, ChatRequest)> {
    let mut base = ChatRequest::new(
        Some("m".to_owned()),
        vec![Message::text(Role::User, "Hello.")],
    );
    base.max_tokens = Some(100);
    base.stream = true;
    (feature.base)(&mut base);
    let mut with = base.clone();
    (feature.with)(&mut with, dialect).then_some((base, with))
}

pub(crate) fn fate(feature: &Feature, upstream: Upstream, is_beside: bool) -> Fate {
    let Some((base, with)) = requests(feature, upstream.dialect) else {
        return Fate::Nothing;
    };
    let said = added(&fields(&base), &fields(&with));
    let place = match is_beside {
        false => Place::Alone,
        true => Place::Beside {
            has_tools: !base.tools.is_empty(),
        },
    };
    let body = |request| upstream.body(request, place);
    let (base, with) = match body(&base).and_then(|base| Ok((base, body(&with)?))) {
        Ok(bodies) => bodies,
        Err(error) => return Fate::Refused(param(&error).filter(|param| param != feature.field)),
    };
    let added = added(&base, &with);
    // A probe that is lost leaves its wrapping behind.
    let is_lost = said.iter().any(Leaf::is_probe) && !added.iter().any(Leaf::is_probe);
    match added.is_empty() || is_lost {
        true => Fate::LeftOut,
        false => Fate::Sent(shown(&base, &added, feature.is_placed)),
    }
}

/// The field that an error names, without indexes.
pub(crate) fn param(error: &ApiError) -> Option<String> {
    let param = error.param.as_deref()?;
    let names = param.split('.').map(|name| name.split('[').next().unwrap());
    Some(names.collect::<Vec<_>>().join("."))
}

pub(crate) fn tables() -> String {
    let mut notes = Notes::default();
    let stand_ins = UPSTREAMS.map(|upstream| {
        let Upstream {
            provider, model, ..
        } = upstream;
        format!(
            "{}: {}, {}",
            code(&upstream.word()),
            code(provider),
            code(model)
        )
    });
    let mut text = format!(
        "Measured with these providers and models: {}.\n\n",
        stand_ins.join("; ")
    );
    for (title, features) in GROUPS {
        text.push_str(&format!("### {title}\n\n{}", head()));
        for feature in *features {
            let cells = UPSTREAMS.map(|upstream| {
                let fate = fate(feature, upstream, false);
                notes.cell(&fate, LEFT_OUT, feature, upstream)
            });
            text.push_str(&line(feature, cells));
        }
        text.push('\n');
    }
    text.push_str(
        "### Beside a context\n\nOnly what differs there. The context has a handle where the dialect has handles, and it \
         has the tools.\n\n",
    );
    text.push_str(&head());
    for feature in GROUPS.iter().flat_map(|(_, features)| features.iter()) {
        let cells = UPSTREAMS.map(|upstream| {
            let [alone, beside] = [false, true].map(|is_beside| fate(feature, upstream, is_beside));
            match alone == beside {
                true => String::new(),
                false => notes.cell(&beside, BESIDE_CONTEXT, feature, upstream),
            }
        });
        if cells.iter().any(|cell| !cell.is_empty()) {
            text.push_str(&line(feature, cells));
        }
    }
    text.push_str("\n### Why something is left out\n\n");
    for (number, why) in notes.known.iter().enumerate() {
        text.push_str(&format!("{}. {why}\n", number + 1));
    }
    text
}

fn head() -> String {
    let dialects = UPSTREAMS.iter().map(|upstream| code(&upstream.word()));
    let columns = std::iter::once("what is said".to_owned()).chain(dialects);
    heading(&columns.collect::<Vec<_>>())
}

fn line(feature: &Feature, cells: [String; 7]) -> String {
    let cells = std::iter::once(feature.name.to_owned()).chain(cells);
    row(&cells.collect::<Vec<_>>())
}

/// Reasons in the order of their first use.
#[derive(Default)]
struct Notes {
    known: Vec<&'static str>,
}

impl Notes {
    fn cell(
        &mut self,
        fate: &Fate,
        reasons: &[Why],
        feature: &Feature,
        upstream: Upstream,
    ) -> String {
        match fate {
            Fate::Sent(place) => place.clone(),
            Fate::Refused(None) => "refused".to_owned(),
            Fate::Refused(Some(param)) => format!("refused ({})", code(param)),
            Fate::Nothing => "-".to_owned(),
            Fate::LeftOut => {
                // That there is one is for a test of its own, which names all that are missing.
                let why = why(reasons, feature.name, upstream.dialect).unwrap_or("?");
                let at = self.known.iter().position(|known| *known == why);
                let at = at.unwrap_or_else(|| {
                    self.known.push(why);
                    self.known.len() - 1
                });
                format!("left out ({})", at + 1)
            }
        }
    }
}
