//! Why something is left out. What is not listed here must arrive or be refused.

pub(crate) mod clients;

use holdfast_protocol::provider::UpstreamDialectName;

use UpstreamDialectName::{
    Anthropic, ArkContext, ArkResponses, BedrockConverse, Gemini, OpenaiChat, OpenaiResponses,
};

/// A reason, and the features that are left out for it at these upstreams.
pub(crate) type Why = (&'static str, &'static [Cells]);
pub(crate) type Cells = (&'static str, &'static [UpstreamDialectName]);

const ALL: &[UpstreamDialectName] = &[
    OpenaiChat,
    OpenaiResponses,
    ArkResponses,
    ArkContext,
    Anthropic,
    Gemini,
    BedrockConverse,
];
const CLAUDES: &[UpstreamDialectName] = &[Anthropic, BedrockConverse];
const FOREIGN: &[UpstreamDialectName] = &[Anthropic, Gemini, BedrockConverse];
const CACHE_FIELDS: &str = "The gateway writes its own cache fields.";
const ARK: &[UpstreamDialectName] = &[ArkResponses, ArkContext];

/// In a request that names no context.
pub(crate) const LEFT_OUT: &[Why] = &[
    (
        "The API has no field of this meaning.",
        &[
            (
                "`top_k`",
                &[OpenaiChat, OpenaiResponses, ArkResponses, ArkContext],
            ),
            ("`frequency_penalty`", CLAUDES),
            ("`presence_penalty`", CLAUDES),
            (
                "`seed`",
                &[OpenaiResponses, ArkResponses, Anthropic, BedrockConverse],
            ),
            (
                "`seed` beyond 32 bits",
                &[OpenaiResponses, ArkResponses, Anthropic, BedrockConverse],
            ),
            ("a schema's name", &[Anthropic, Gemini]),
            ("a schema's `strict`", FOREIGN),
            ("a tool's `strict`", &[ArkResponses, Gemini]),
            ("`parallel_tool_calls`: false", &[Gemini]),
            (
                "`name`",
                &[
                    OpenaiResponses,
                    ArkResponses,
                    Anthropic,
                    Gemini,
                    BedrockConverse,
                ],
            ),
            ("an image's `detail`", FOREIGN),
            ("a file's name", &[Gemini]),
            ("`user`, who asks", &[ArkResponses, Gemini, BedrockConverse]),
        ],
    ),
    (
        "It is the default there.",
        &[
            (
                "`tool_choice`: `auto`",
                &[
                    OpenaiResponses,
                    ArkResponses,
                    Anthropic,
                    Gemini,
                    BedrockConverse,
                ],
            ),
            ("`reasoning`: on", &[OpenaiChat, OpenaiResponses]),
            (
                "`reasoning`: as the model sees fit",
                &[OpenaiChat, OpenaiResponses],
            ),
        ],
    ),
    (
        "Only reasoning that the provider has sealed itself can go back.",
        &[(
            "reasoning of an earlier answer",
            &[OpenaiResponses, Anthropic, BedrockConverse],
        )],
    ),
    (
        "Google wants the seal alone.",
        &[("reasoning of an earlier answer", &[Gemini])],
    ),
    (
        "Ark's models do not read it.",
        &[("reasoning of an earlier answer", &[ArkResponses])],
    ),
    (
        "The provider refuses the field in messages.",
        &[("reasoning of an earlier answer", &[OpenaiChat, ArkContext])],
    ),
    (
        "Only the dialect that made a seal can read it.",
        &[("its seal, if another dialect made it", ALL)],
    ),
    (
        "The API refuses such texts.",
        &[("a text of white space", CLAUDES)],
    ),
    (
        "Google knows only the ids that it gave itself; a result names its function.",
        &[("a tool call's id", &[Gemini])],
    ),
    (
        "OpenAI has `safety_identifier` in its place, which a client must set itself.",
        &[("`user`, who asks", &[OpenaiResponses])],
    ),
    (
        "Ark fails requests that have fields it does not know.",
        &[
            ("`verbosity`", ARK),
            ("`safety_identifier`", ARK),
            ("`service_tier`", ARK),
            ("a field that the gateway does not know", ARK),
        ],
    ),
    (
        "The field is another API's, and means nothing there.",
        &[
            ("`verbosity`", FOREIGN),
            ("`safety_identifier`", FOREIGN),
            ("`service_tier`", FOREIGN),
            (
                "a field that the gateway does not know",
                &[OpenaiResponses, Anthropic, Gemini, BedrockConverse],
            ),
        ],
    ),
    (
        CACHE_FIELDS,
        &[
            (
                "`prompt_cache_key`",
                &[
                    OpenaiResponses,
                    ArkResponses,
                    ArkContext,
                    Anthropic,
                    Gemini,
                    BedrockConverse,
                ],
            ),
            (
                "`prompt_cache_retention`",
                &[
                    OpenaiResponses,
                    ArkResponses,
                    ArkContext,
                    Anthropic,
                    Gemini,
                    BedrockConverse,
                ],
            ),
        ],
    ),
];

/// Beside a context, where it arrives without one.
pub(crate) const BESIDE_CONTEXT: &[Why] = &[
    (
        "It is part of the handle, which was made with it.",
        &[
            ("a tool's description", &[ArkResponses, Gemini]),
            ("a tool's parameters", &[ArkResponses, Gemini]),
            ("`tool_choice`: `none`", &[Gemini]),
            ("`tool_choice`: `required`", &[Gemini]),
            ("`tool_choice`: a function", &[Gemini]),
        ],
    ),
    (
        CACHE_FIELDS,
        &[
            ("`prompt_cache_key`", &[OpenaiChat]),
            ("`prompt_cache_retention`", &[OpenaiChat]),
        ],
    ),
];

/// The reason for a feature at an upstream.
pub(crate) fn why(
    reasons: &[Why],
    feature: &str,
    dialect: UpstreamDialectName,
) -> Option<&'static str> {
    let is_meant = |(name, dialects): &Cells| *name == feature && dialects.contains(&dialect);
    let why = reasons.iter().find(|(_, cells)| cells.iter().any(is_meant));
    why.map(|(why, _)| *why)
}
