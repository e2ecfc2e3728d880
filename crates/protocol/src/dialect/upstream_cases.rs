//! Runs the fixtures of a dialect towards upstreams: each input has its expected result beside it.
//! `UPDATE_GOLDEN=1` writes the results anew.
//!
//! `call_*.json` is a chat (with `new` messages) or a hold (without), `held_*.json` an answer to a hold and
//! `stream_*.sse` an answer to a chat.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::chat::{
    ChatRequest, Message, ReasoningLevel, ResponseFormat, Sampling, Tool, ToolChoice,
};
use crate::compose::{ComposedRequest, compose};
use crate::context::{
    Context, ContextContent, ContextId, ContextMode, CreateContext, CreateSurface, Profile,
    ProfileKind, StoredMessage, Turn,
};
use crate::error::ApiError;
use crate::provider::{ModelRules, UpstreamDialectName, by_name};
use crate::upstream::{
    AnswerEvent, Chain, ChatCall, Failure, HandleUse, HoldCall, HttpCall, Markers, PrefixParts,
    UpstreamDialect,
};

/// A call to be written; what is left out is empty.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) initial: Vec<Message>,
    pub(crate) history: Vec<Message>,
    pub(crate) previous_history: usize,
    pub(crate) tools: Vec<Tool>,
    pub(crate) tool_choice: Option<ToolChoice>,
    pub(crate) tenant_line: Option<String>,
    pub(crate) initial_marker: Option<u32>,
    pub(crate) history_marker: Option<u32>,
    pub(crate) handle: Option<String>,
    pub(crate) handle_has_history: bool,
    pub(crate) chain_until: Option<i64>,
    pub(crate) cache_key: Option<String>,
    pub(crate) tier_seconds: Option<u32>,
    pub(crate) without_context: bool,
    pub(crate) new: Vec<Message>,
    pub(crate) own_tools: Vec<Tool>,
    pub(crate) own_tool_choice: Option<ToolChoice>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<u32>,
    pub(crate) reasoning: Option<ReasoningLevel>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) seed: Option<i64>,
    pub(crate) logit_bias: Vec<(u32, f32)>,
    pub(crate) stop: Vec<String>,
    pub(crate) choices: Option<u32>,
    pub(crate) logprobs: Option<u8>,
    pub(crate) response_format: ResponseFormat,
    pub(crate) parallel_tool_calls: Option<bool>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) extra: Map<String, Value>,
}

impl Case {
    pub(crate) fn rules(&self, name: UpstreamDialectName) -> ModelRules {
        let mut rules = (by_name(&self.provider).unwrap().rules)(name, &self.model);
        // What the gateway fills in.
        rules.quirks.vertex_parent = rules.quirks.vertex_parent.map(|parent| {
            parent
                .replace("{project}", "p1")
                .replace("{region}", "europe-west4")
        });
        rules
    }

    /// The call for a chat, or for a hold where there are no new messages.
    pub(crate) fn encode(
        &self,
        dialect: &dyn UpstreamDialect,
        name: UpstreamDialectName,
    ) -> Result<Option<HttpCall>, ApiError> {
        let rules = self.rules(name);
        let prefix = dialect.encode_prefix(
            &PrefixParts {
                initial: &self.initial,
                history: &self.history,
                previous_history: self.previous_history,
                tools: &self.tools,
                markers: Markers {
                    initial_seconds: self.initial_marker,
                    history_seconds: self.history_marker,
                },
                tenant_line: self.tenant_line.as_deref(),
            },
            &rules,
        )?;
        if self.new.is_empty() {
            return dialect.encode_hold(&HoldCall {
                model: &self.model,
                prefix: &prefix,
                tool_choice: self.tool_choice.as_ref(),
                ttl_seconds: 300,
                expires_at_seconds: 1_764_000_300,
                cache_key: self.cache_key.as_deref(),
                salt: None,
                tier_seconds: self.tier_seconds,
                rules: &rules,
            });
        }
        let composed = self.composed();
        let handle = self.handle.as_deref().map(|name| HandleUse {
            name,
            with_history: self.handle_has_history,
        });
        dialect
            .encode_chat(&ChatCall {
                model: &self.model,
                prefix: (!self.without_context).then_some(&prefix),
                handle,
                chain: self
                    .chain_until
                    .map(|expires_at_seconds| Chain { expires_at_seconds }),
                composed: &composed,
                max_tokens: self.max_tokens,
                cache_key: self.cache_key.as_deref(),
                salt: None,
                tier_seconds: self.tier_seconds,
                previous_answer: None,
                rules: &rules,
            })
            .map(Some)
    }

    pub(crate) fn composed(&self) -> ComposedRequest {
        let request = ChatRequest {
            sampling: Sampling {
                temperature: self.temperature,
                top_p: self.top_p,
                top_k: self.top_k,
                frequency_penalty: None,
                presence_penalty: self.presence_penalty,
                seed: self.seed,
                logit_bias: self.logit_bias.clone(),
            },
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            choices: self.choices.unwrap_or(1),
            logprobs: self.logprobs,
            response_format: self.response_format.clone(),
            tools: self.own_tools.clone(),
            tool_choice: self.own_tool_choice.clone(),
            parallel_tool_calls: self.parallel_tool_calls,
            stream: true,
            include_usage: false,
            user: Some("someone".to_owned()),
            reasoning: self.reasoning,
            extra: self.extra.clone(),
            ..ChatRequest::new(Some("m".to_owned()), self.new.clone())
        };
        if self.without_context {
            return compose(None, request, 1_000_000, 100).unwrap();
        }
        let create = CreateContext {
            model: "m".to_owned(),
            messages: self.initial.clone(),
            mode: Some(ContextMode::CommonPrefix),
            ttl_seconds: None,
            truncation: None,
            tools: self.tools.clone(),
            tool_choice: self.tool_choice.clone(),
            display_name: None,
            metadata: Default::default(),
            policy: Default::default(),
        };
        let context = Context::new(
            &create,
            CreateSurface::OpenAi,
            &Profile::of(ProfileKind::Native, 1_000_000),
            "p",
            "m",
            ContextId::new(0, [0; 16]),
            100,
            0,
        )
        .unwrap();
        let messages = self
            .history
            .iter()
            .map(|message| StoredMessage {
                message: message.clone(),
                tokens: 1,
            })
            .collect();
        let turn = Turn {
            number: 1,
            messages,
            committed_at: 0,
        };
        let content = Arc::new(ContextContent {
            initial: self.initial.clone(),
            turns: vec![turn],
        });
        compose(Some((&context, &content)), request, 1_000_000, 100).unwrap()
    }
}

/// The body in one piece.
pub(crate) fn body_of(call: &HttpCall) -> Vec<u8> {
    call.body.concat()
}

/// All that a decoder makes of `pieces`.
pub(crate) fn decode(
    dialect: &dyn UpstreamDialect,
    rules: &ModelRules,
    pieces: &[&[u8]],
) -> Vec<Result<AnswerEvent, Failure>> {
    let mut decoder = dialect.decoder(rules);
    let mut events: Vec<_> = pieces
        .iter()
        .flat_map(|piece| decoder.push(piece))
        .collect();
    events.extend(decoder.finish());
    assert!(
        decoder.push(b"data: {}\n\n").is_empty(),
        "it goes on after its end"
    );
    assert!(decoder.finish().is_empty(), "it ends twice");
    events
}

/// Runs every fixture of the folder `fixtures/upstream/<folder>`. Answers are read by the rules of `model`.
pub(crate) fn run(
    dialect: &dyn UpstreamDialect,
    name: UpstreamDialectName,
    folder: &str,
    provider: &str,
    model: &str,
) {
    let rules = Case {
        provider: provider.to_owned(),
        model: model.to_owned(),
        ..Case::default()
    }
    .rules(name);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/upstream")
        .join(folder);
    let mut inputs: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| !file.ends_with(".expected.txt"))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no fixtures in {}", folder.display());
    for input in inputs {
        let bytes = fs::read(folder.join(&input)).unwrap();
        let (case, _) = input.split_once('.').unwrap();
        let found = match case.split('_').next().unwrap() {
            "call" => {
                let case: Case = serde_json::from_slice(&bytes).unwrap();
                show_call(&case.encode(dialect, name))
            }
            "held" => format!("{:#?}\n", dialect.decode_hold(&bytes, &rules)),
            "stream" => {
                let events = decode(dialect, &rules, &[&bytes]);
                for cut in 0..=bytes.len() {
                    let (first, second) = bytes.split_at(cut);
                    let cut_events = decode(dialect, &rules, &[first, second]);
                    assert_eq!(cut_events, events, "{input} cut at {cut}");
                }
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                assert_eq!(
                    decode(dialect, &rules, &single),
                    events,
                    "{input} byte by byte"
                );
                show_events(&events)
            }
            _ => panic!("{input}: no such kind of fixture"),
        };
        assert_eq!(
            input.contains("_error_"),
            found.starts_with("error ") || found.starts_with("Err(") || found.contains("\nErr("),
            "{input} is named wrongly:\n{found}"
        );
        check(&folder.join(format!("{case}.expected.txt")), &found);
    }
}

fn check(path: &PathBuf, found: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, found).unwrap();
        return;
    }
    let name = path.display();
    let expected = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(
        expected == found,
        "{name} differs; if that is right, write it with UPDATE_GOLDEN=1\n--- expected\n{expected}\n--- found\n{found}"
    );
}

fn show_call(call: &Result<Option<HttpCall>, ApiError>) -> String {
    match call {
        Ok(Some(call)) => {
            let mut text = format!("{:?} {}\n", call.method, call.path);
            for (name, value) in &call.headers {
                writeln!(text, "{name}: {value}").unwrap();
            }
            let body: Value = serde_json::from_slice(&body_of(call)).unwrap();
            writeln!(text, "\n{}", serde_json::to_string_pretty(&body).unwrap()).unwrap();
            text
        }
        Ok(None) => "nothing to call\n".to_owned(),
        Err(error) => format!(
            "error {:?} {:?}: {}\n",
            error.kind, error.param, error.message
        ),
    }
}

fn show_events(events: &[Result<AnswerEvent, Failure>]) -> String {
    events.iter().fold(String::new(), |mut text, event| {
        match event {
            Ok(event) => writeln!(text, "{event:?}").unwrap(),
            Err(failure) => writeln!(text, "Err({failure:?})").unwrap(),
        }
        text
    })
}
