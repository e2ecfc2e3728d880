//! Amazon Bedrock: Converse and ConverseStream (facts 2.12).
//!
//! ```text
//! POST /model/{id}/converse
//! POST /model/{id}/converse-stream
//! ```
//!
//! A request is signed (Signature Version 4, with [`ACCESS_KEY_ID`] and [`SECRET_ACCESS_KEY`]) or carries an API key as
//! a bearer token. Usage counts exclude each other: `inputTokens` is what was neither read nor written.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use self::models::{Caching, NOVA_TOKENS_MIN};
use self::prompt::Prompt;
use self::reply::Told;
use self::sigv4::{Scope, percent_decode};
use super::anthropic::cache::{
    LOOKBACK_POSITIONS, Limits, Mark, MarkerCache, Settled, StepKind, TTL_SHORT_SECONDS,
};
use super::anthropic::generated::{Generated, Room};
use super::anthropic::thinking::is_omitted;
use crate::Family;
use crate::bill::Charge;
use crate::reply::Reply;
use crate::request::RawRequest;
use crate::server::Desk;

mod extra;
mod frame;
mod media;
mod models;
mod prompt;
mod reply;
mod sigv4;

pub use self::sigv4::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};

/// API keys that begin with this are refused; any other opens an account of its own.
pub const INVALID_KEY_PREFIX: &str = "invalid";

const SERVICE: &str = "bedrock";
/// Largest request, bytes.
const BODY_BYTES_MAX: usize = 25_000_000;

/// The family.
#[derive(Debug)]
pub struct Bedrock {
    region: String,
    checks_dates: bool,
    write_visible_late: Duration,
    cache_tokens_min: Option<u64>,
    thinks_only_when_asked: bool,
    cache: MarkerCache,
}

impl Default for Bedrock {
    fn default() -> Self {
        Self::new()
    }
}

impl Bedrock {
    /// In `us-east-1`.
    pub fn new() -> Self {
        Bedrock {
            region: "us-east-1".to_owned(),
            checks_dates: false,
            write_visible_late: Duration::ZERO,
            cache_tokens_min: None,
            thinks_only_when_asked: false,
            cache: MarkerCache::default(),
        }
    }

    /// In another region, for which requests must then be signed.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = region.into();
        self
    }

    /// The date of a signature must be within five minutes of the emulator's clock. Off by default, because tests let
    /// that clock jump.
    #[must_use]
    pub fn checking_dates(mut self) -> Self {
        self.checks_dates = true;
        self
    }

    /// What a request writes can be read only so much later than its answer begins.
    #[must_use]
    pub fn write_visible_late(mut self, delay: Duration) -> Self {
        self.write_visible_late = delay;
        self
    }

    /// The shortest prefix that is cached, for all models, instead of what each model has.
    #[must_use]
    pub fn cache_tokens_min(mut self, tokens: u64) -> Self {
        self.cache_tokens_min = Some(tokens);
        self
    }

    /// A request that says nothing about thinking is answered without any. Otherwise only `disabled` keeps a scripted
    /// thought back.
    #[must_use]
    pub fn thinking_only_when_asked(mut self) -> Self {
        self.thinks_only_when_asked = true;
        self
    }

    fn account(&self, request: &RawRequest, now_ms: i64) -> Result<String, Refusal> {
        if let Some(key) = request.bearer() {
            if key.is_empty() || key.starts_with(INVALID_KEY_PREFIX) {
                let message = "Authentication failed: Please make sure your API Key is valid.";
                return Err(Refusal::new(403, "AccessDeniedException", message));
            }
            return Ok(key.to_owned());
        }
        if request.header("authorization").is_none() {
            return Err(Refusal::new(
                403,
                "MissingAuthenticationTokenException",
                "Missing Authentication Token",
            ));
        }
        let now_seconds = self.checks_dates.then(|| now_ms.div_euclid(1000));
        sigv4::verify(
            request,
            Scope {
                region: &self.region,
                service: SERVICE,
                now_seconds,
            },
        )?;
        Ok(ACCESS_KEY_ID.to_owned())
    }

    fn route(&self, request: &RawRequest, desk: &Desk<'_>) -> Result<Reply, Refusal> {
        let account = self.account(request, desk.now_ms)?;
        let (model, operation) = request
            .path
            .strip_prefix("/model/")
            .and_then(|rest| rest.split_once('/'))
            .filter(|(_, operation)| ["converse", "converse-stream"].contains(operation))
            .filter(|_| request.method == "POST")
            .ok_or_else(|| Refusal::new(404, "UnknownOperationException", ""))?;
        let model = String::from_utf8_lossy(&percent_decode(model)).into_owned();
        let caching = models::caching(&model)
            .ok_or_else(|| invalid("The provided model identifier is invalid.".into()))?;
        if request.body.len() > BODY_BYTES_MAX {
            return Err(invalid("The request payload is too large.".into()));
        }
        let body = request.json().ok_or_else(|| {
            invalid("Malformed input request, please reformat your input and try again.".into())
        })?;
        let prompt = prompt::render(&body, caching, extra::maker(&model)).map_err(invalid)?;
        let settled = self.settle(
            &format!("{account}\n{}\n{model}", self.region),
            &prompt,
            caching,
            desk,
        );
        let number = desk.next_id();
        let answer = desk.script.take(settled.total(), forced_tool(&body));
        let generated = Generated::new(&answer, &self.room(&body), |index| {
            format!("tooluse_{number:018}_{index:02}")
        });
        let told = Told {
            settled: &settled,
            caching,
            usage_fault: desk.usage_fault,
        };
        let reply = if operation == "converse" {
            Reply::json(200, &told.whole(&generated))
        } else {
            Reply {
                content_type: frame::CONTENT_TYPE,
                ..Reply::frames(told.frames(&generated))
            }
        };
        Ok(reply
            .header(
                "x-amzn-requestid",
                format!("{number:08x}-0000-4000-8000-000000000000"),
            )
            .charge(Charge {
                kind: "chat".to_owned(),
                account,
                model,
                uncached_input: settled.uncached,
                cache_read: settled.read,
                cache_write: settled.write.clone(),
                output: generated.output_tokens,
                ..Charge::default()
            }))
    }

    fn settle(&self, salt: &str, prompt: &Prompt, caching: Caching, desk: &Desk<'_>) -> Settled {
        let tokens_min = match caching {
            Caching::Claude { tokens_min, .. } => tokens_min,
            Caching::Nova => NOVA_TOKENS_MIN,
            Caching::None => u64::MAX,
        };
        // An entry can be read from when the answer that writes it begins: calls in parallel all write.
        let late = desk.start_delay + self.write_visible_late;
        let limits = Limits {
            tokens_min: self.cache_tokens_min.unwrap_or(tokens_min),
            lookback_positions: LOOKBACK_POSITIONS,
            now_ms: desk.now_ms,
            visible_ms: desk.now_ms + i64::try_from(late.as_millis()).unwrap(),
        };
        if !(caching == Caching::Nova && prompt.marks.is_empty() && prompt.is_text) {
            return self
                .cache
                .settle(salt, &prompt.steps, &prompt.marks, limits);
        }
        // Nova's own caching: every block's end is kept, and what isn't read costs what input costs.
        let marks: Vec<Mark> = (0..prompt.steps.len())
            .filter(|step| prompt.steps[*step].kind != StepKind::Hidden)
            .map(|step| Mark {
                step,
                ttl_seconds: TTL_SHORT_SECONDS,
            })
            .collect();
        let mut settled = self.cache.settle(salt, &prompt.steps, &marks, limits);
        settled.uncached += settled.written();
        settled.write.clear();
        settled
    }

    /// What the request leaves to the answer.
    fn room<'a>(&self, body: &'a Value) -> Room<'a> {
        let config = &body["inferenceConfig"];
        let thinking = extra::thinking(body);
        Room {
            tokens_max: config["maxTokens"].as_u64().unwrap_or(u64::MAX),
            stop_sequences: config["stopSequences"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect(),
            may_think: thinking.map_or(!self.thinks_only_when_asked, |thinking| {
                thinking["type"] != "disabled"
            }),
            shows_thinking: !is_omitted(thinking),
        }
    }
}

/// The tool that the model must call.
fn forced_tool(body: &Value) -> Option<&str> {
    let config = body.get("toolConfig")?;
    let choice = config.get("toolChoice")?;
    if choice.get("any").is_some() {
        return config["tools"][0]["toolSpec"]["name"].as_str();
    }
    choice["tool"]["name"].as_str()
}

/// A request that the service turns down.
struct Refusal {
    status: u16,
    kind: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Refusal {
            status,
            kind,
            message: message.into(),
        }
    }
}

fn invalid(message: String) -> Refusal {
    // This one is about the model's permission, and the service says so.
    if message.starts_with("You invoked an unsupported model") {
        return Refusal::new(403, "AccessDeniedException", message);
    }
    Refusal::new(400, "ValidationException", message)
}

fn envelope(status: u16, kind: &str, message: &str) -> Reply {
    // The header goes on after the name: who compares it whole recognises nothing.
    Reply::json(status, &json!({"message": message}))
        .header(
            "x-amzn-errortype",
            format!("{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"),
        )
        .header("x-amzn-requestid", "00000000-0000-4000-8000-000000000000")
}

impl Family for Bedrock {
    fn name(&self) -> &'static str {
        "bedrock"
    }

    fn answer(&self, request: &RawRequest, desk: &Desk<'_>) -> Reply {
        self.route(request, desk)
            .unwrap_or_else(|refusal| envelope(refusal.status, refusal.kind, &refusal.message))
    }

    fn failure(&self, status: u16) -> Reply {
        let (kind, message) = match status {
            400 => ("ValidationException", "The request is invalid."),
            401 | 403 => (
                "AccessDeniedException",
                "You don't have access to the model with the specified model ID.",
            ),
            404 => (
                "ResourceNotFoundException",
                "Could not resolve the foundation model from the provided model identifier.",
            ),
            408 => (
                "ModelTimeoutException",
                "The model timed out while processing the request.",
            ),
            424 => ("ModelErrorException", "The model returned an error."),
            429 => (
                "ThrottlingException",
                "Too many requests, please wait before trying again.",
            ),
            503 => (
                "ServiceUnavailableException",
                "Bedrock is unable to process your request.",
            ),
            _ => (
                "InternalServerException",
                "The system encountered an unexpected error during processing. Try your request again.",
            ),
        };
        envelope(status, kind, message)
    }

    fn failure_in_stream(&self) -> Bytes {
        frame::exception(
            "throttlingException",
            "Too many requests, please wait before trying again.",
        )
    }

    fn evict_all(&self) {
        self.cache.clear();
    }
}
