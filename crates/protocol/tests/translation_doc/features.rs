//! All that a request can say in the internal form.

mod build;
mod messages;

use holdfast_protocol::chat::{
    ChatRequest, ReasoningLevel, ReasoningSignature, ResponseFormat, ToolChoice,
};
use holdfast_protocol::provider::UpstreamDialectName;
use serde_json::json;

use self::build::{
    answered, extra, json_schema, parameters, reasoned, schema_parts, seal_word, set, tools,
};
use crate::{PROBE, PROBE_BASE64};

/// One thing that a request can say.
pub(crate) struct Feature {
    /// How the document calls it.
    pub(crate) name: &'static str,
    /// What an error about it names; any other field is shown.
    pub(crate) field: &'static str,
    /// Whether it matters whose message it ends up in.
    pub(crate) is_placed: bool,
    /// What must be there before it.
    pub(crate) base: fn(&mut ChatRequest),
    /// Adds it. False: this dialect has no such thing.
    pub(crate) with: fn(&mut ChatRequest, UpstreamDialectName) -> bool,
}

impl Feature {
    const fn new(name: &'static str, field: &'static str, with: With) -> Self {
        Feature {
            name,
            field,
            is_placed: false,
            base: |_| {},
            with,
        }
    }

    const fn on(self, base: fn(&mut ChatRequest)) -> Self {
        Feature { base, ..self }
    }

    const fn placed(self) -> Self {
        Feature {
            is_placed: true,
            ..self
        }
    }
}

type With = fn(&mut ChatRequest, UpstreamDialectName) -> bool;

/// All features, under the titles of their tables.
pub(crate) const GROUPS: &[(&str, &[Feature])] = &[
    ("Sampling and limits", LIMITS),
    ("The shape of the answer", SHAPES),
    ("Tools", TOOLS),
    ("Reasoning", REASONING),
    ("Messages", messages::MESSAGES),
    ("Images and files", messages::MEDIA),
    ("Other fields", OTHERS),
];

const LIMITS: &[Feature] = &[
    Feature::new("`temperature`", "temperature", |request, _| {
        set(&mut request.sampling.temperature, 0.5)
    }),
    Feature::new("`temperature` above 1", "temperature", |request, _| {
        set(&mut request.sampling.temperature, 1.5)
    }),
    Feature::new("`top_p`", "top_p", |request, _| {
        set(&mut request.sampling.top_p, 0.5)
    }),
    Feature::new("`top_k`", "top_k", |request, _| {
        set(&mut request.sampling.top_k, 40)
    }),
    Feature::new("`frequency_penalty`", "frequency_penalty", |request, _| {
        set(&mut request.sampling.frequency_penalty, 0.5)
    }),
    Feature::new("`presence_penalty`", "presence_penalty", |request, _| {
        set(&mut request.sampling.presence_penalty, 0.5)
    }),
    Feature::new("`seed`", "seed", |request, _| {
        set(&mut request.sampling.seed, 7)
    }),
    Feature::new("`seed` beyond 32 bits", "seed", |request, _| {
        set(&mut request.sampling.seed, 1 << 40)
    }),
    Feature::new("`logit_bias`", "logit_bias", |request, _| {
        request.sampling.logit_bias = vec![(11, 1.0), (12, -1.0)];
        true
    }),
    Feature::new("`max_tokens`", "max_tokens", |request, _| {
        set(&mut request.max_tokens, 200)
    }),
    Feature::new("`stop`", "stop", |request, _| {
        request.stop = vec!["###".to_owned()];
        true
    }),
    Feature::new("`n` above 1", "n", |request, _| {
        request.choices = 2;
        true
    }),
    Feature::new("`logprobs`", "logprobs", |request, _| {
        set(&mut request.logprobs, 0)
    }),
    Feature::new("`top_logprobs`", "logprobs", |request, _| {
        set(&mut request.logprobs, 3)
    })
    .on(|request| request.logprobs = Some(0)),
];

const SHAPES: &[Feature] = &[
    Feature::new("`json_object`", "response_format", |request, _| {
        request.response_format = ResponseFormat::JsonObject;
        true
    }),
    Feature::new("`json_schema`", "response_format", |request, _| {
        json_schema(request);
        true
    }),
    Feature::new("a schema's name", "response_format", |request, _| {
        schema_parts(request).0.push_str(PROBE);
        true
    })
    .on(json_schema),
    Feature::new("a schema's `strict`", "response_format", |request, _| {
        *schema_parts(request).1 = true;
        true
    })
    .on(json_schema),
    Feature::new("`verbosity`", "verbosity", |request, _| {
        extra(request, "verbosity", json!("low"))
    }),
];

const TOOLS: &[Feature] = &[
    Feature::new("`tools`", "tools", |request, _| {
        tools(request);
        request.tools[0].parameters = Some(parameters("a"));
        set(
            &mut request.tools[0].description,
            "What it does.".to_owned(),
        )
    }),
    Feature::new(
        "a tool's description",
        "tools.function.description",
        |request, _| set(&mut request.tools[0].description, PROBE.to_owned()),
    )
    .on(tools),
    Feature::new(
        "a tool's parameters",
        "tools.function.parameters",
        |request, _| set(&mut request.tools[0].parameters, parameters(PROBE)),
    )
    .on(tools),
    Feature::new("a tool's `strict`", "tools", |request, _| {
        set(&mut request.tools[0].strict, true)
    })
    .on(tools),
    Feature::new("`tool_choice`: `auto`", "tool_choice", |request, _| {
        set(&mut request.tool_choice, ToolChoice::Auto)
    })
    .on(tools),
    Feature::new("`tool_choice`: `none`", "tool_choice", |request, _| {
        set(&mut request.tool_choice, ToolChoice::None)
    })
    .on(tools),
    Feature::new("`tool_choice`: `required`", "tool_choice", |request, _| {
        set(&mut request.tool_choice, ToolChoice::Required)
    })
    .on(tools),
    Feature::new("`tool_choice`: a function", "tool_choice", |request, _| {
        set(
            &mut request.tool_choice,
            ToolChoice::Named("tool_1".to_owned()),
        )
    })
    .on(tools),
    Feature::new(
        "`parallel_tool_calls`: false",
        "parallel_tool_calls",
        |request, _| set(&mut request.parallel_tool_calls, false),
    )
    .on(|request| {
        tools(request);
        request.tool_choice = Some(ToolChoice::Required);
    }),
];

const REASONING: &[Feature] = &[
    Feature::new("`reasoning`: off", "reasoning", |request, _| {
        set(&mut request.reasoning, ReasoningLevel::Off)
    }),
    Feature::new("`reasoning`: on", "reasoning", |request, _| {
        set(&mut request.reasoning, ReasoningLevel::On)
    }),
    Feature::new("`reasoning`: the most", "reasoning", |request, _| {
        set(&mut request.reasoning, ReasoningLevel::Max)
    }),
    Feature::new(
        "`reasoning`: as the model sees fit",
        "reasoning",
        |request, _| set(&mut request.reasoning, ReasoningLevel::Adaptive),
    ),
    Feature::new("`reasoning`: low", "reasoning", |request, _| {
        set(&mut request.reasoning, ReasoningLevel::Low)
    }),
    Feature::new(
        "`reasoning`: up to so many tokens",
        "reasoning",
        |request, _| set(&mut request.reasoning, ReasoningLevel::Budget(2_048)),
    ),
    Feature::new(
        "`reasoning_effort`, as OpenAI's clients write it",
        "reasoning_effort",
        |request, _| {
            request.reasoning = Some(ReasoningLevel::Low);
            extra(request, "reasoning_effort", json!("low"))
        },
    ),
    Feature::new(
        "`thinking`, as Ark's clients write it",
        "thinking",
        |request, _| {
            request.reasoning = Some(ReasoningLevel::Off);
            extra(request, "thinking", json!({"type": "disabled"}))
        },
    ),
    Feature::new(
        "reasoning of an earlier answer",
        "messages.reasoning_content",
        |request, _| set(&mut request.messages[1].reasoning, PROBE.to_owned()),
    )
    .on(answered),
    Feature::new(
        "its seal, if this dialect made it",
        "messages.reasoning_content",
        |request, dialect| {
            let word = seal_word(dialect);
            let seal = word.map(|word| ReasoningSignature::new(word, PROBE_BASE64));
            request.messages[1].reasoning_signature = seal;
            word.is_some()
        },
    )
    .on(reasoned),
    Feature::new(
        "its seal, if another dialect made it",
        "messages.reasoning_content",
        |request, dialect| {
            let words = ["anthropic", "gemini"];
            let other = words
                .into_iter()
                .find(|word| seal_word(dialect) != Some(word));
            let seal = other.map(|word| ReasoningSignature::new(word, PROBE_BASE64));
            request.messages[1].reasoning_signature = seal;
            true
        },
    )
    .on(reasoned),
];

const OTHERS: &[Feature] = &[
    Feature::new("`user`, who asks", "user", |request, _| {
        set(&mut request.user, PROBE.to_owned())
    }),
    Feature::new("`safety_identifier`", "safety_identifier", |request, _| {
        extra(request, "safety_identifier", json!(PROBE))
    }),
    Feature::new("`service_tier`", "service_tier", |request, _| {
        extra(request, "service_tier", json!("flex"))
    }),
    Feature::new("`prompt_cache_key`", "prompt_cache_key", |request, _| {
        extra(request, "prompt_cache_key", json!(PROBE))
    }),
    Feature::new(
        "`prompt_cache_retention`",
        "prompt_cache_retention",
        |request, _| extra(request, "prompt_cache_retention", json!("24h")),
    ),
    Feature::new(
        "a field that the gateway does not know",
        "something_new",
        |request, _| extra(request, "something_new", json!(PROBE)),
    ),
];
