//! What of clients' requests does not get into the internal form, and why.

use holdfast_protocol::chat::ClientDialect;

/// The reason, and the fields of a client's dialect that are left out for it.
pub(crate) type Why = (&'static str, ClientDialect, &'static [&'static str]);

const UNKNOWN: &str = "not known here";
const DEFAULT: &str = "it is the default";
const GOOGLES: &str = "Google's own";
const ANTHROPICS: &str = "Anthropic's own";

/// What does not get into the internal form.
pub(crate) const LEFT_OUT: &[Why] = {
    use ClientDialect::{Anthropic, Gemini, OpenAi, Responses};
    &[
        (DEFAULT, OpenAi, &["`response_format`: `text`"]),
        (
            "a `description` within the schema is kept",
            OpenAi,
            &["a schema's `description` beside it"],
        ),
        (
            "streams are not padded",
            OpenAi,
            &["`stream_options.include_obfuscation`"],
        ),
        (
            "retired by OpenAI in favour of `tool_calls`",
            OpenAi,
            &["`function_call` of an answer"],
        ),
        ("names a sound at OpenAI", OpenAi, &["`audio` of an answer"]),
        (
            "says something about the text, and is not part of it",
            OpenAi,
            &["`annotations` of an answer"],
        ),
        ("fixed when the context is created", OpenAi, &["`mode`"]),
        (
            DEFAULT,
            Responses,
            &["`text.format`: `text`", "`background`: false"],
        ),
        (
            "seals of reasoning are given anyway, and others are about tools that OpenAI runs",
            Responses,
            &["`include`: other words"],
        ),
        ("streams are not padded", Responses, &["`stream_options`"]),
        (
            "says something about the text, and is not part of it",
            Responses,
            &[
                "`annotations` of `output_text`",
                "`logprobs` of `output_text`",
                "`phase` of a message",
            ],
        ),
        (
            UNKNOWN,
            Responses,
            &[
                "`image`",
                "`top_k`",
                "a field that the gateway does not know",
            ],
        ),
        (
            "thinking is shown as the upstream gives it",
            Anthropic,
            &["`thinking`: `display`"],
        ),
        (
            ANTHROPICS,
            Anthropic,
            &[
                "`output_config.task_budget`",
                "`service_tier`",
                "`speed`",
                "`inference_geo`",
                "`diagnostics`",
                "a tool's `input_examples`",
            ],
        ),
        (
            "of use to tools that Anthropic runs",
            Anthropic,
            &[
                "`container`",
                "a tool's `allowed_callers`",
                "`tool_use`: `caller`",
            ],
        ),
        (
            "asks Anthropic to shorten long conversations; all others get all of it",
            Anthropic,
            &["`context_management`"],
        ),
        (
            "the tool is offered at once",
            Anthropic,
            &["a tool's `defer_loading`"],
        ),
        (
            "changes only the pieces that arguments come in",
            Anthropic,
            &["a tool's `eager_input_streaming`"],
        ),
        (
            "answers of others have no citations",
            Anthropic,
            &["a document's `citations`"],
        ),
        (
            "says something about the text, and is not part of it",
            Anthropic,
            &["`citations` of an answer"],
        ),
        (
            "only Anthropic can read it",
            Anthropic,
            &["`redacted_thinking` of an answer"],
        ),
        (
            "the result's text says it",
            Anthropic,
            &["`tool_result`: `is_error`"],
        ),
        (
            UNKNOWN,
            Anthropic,
            &["a field that the gateway does not know"],
        ),
        (
            DEFAULT,
            Gemini,
            &[
                "`responseMimeType`: `text/plain`",
                "`responseModalities`: `TEXT`",
            ],
        ),
        (
            GOOGLES,
            Gemini,
            &[
                "`mediaResolution`",
                "`enableEnhancedCivicAnswers`",
                "`audioTimestamp`",
                "`routingConfig`, `modelSelectionConfig`",
                "`safetySettings`",
                "`labels`",
                "`serviceTier`",
                "`store`",
                "a function's `response`, `responseJsonSchema`",
                "a function's `behavior`",
                "`functionResponse`: `scheduling`, `willContinue`",
                "`mediaResolution` of a part",
                "`partMetadata`",
                "`videoMetadata`",
            ],
        ),
        (
            "of use to tools that Google runs",
            Gemini,
            &["`toolConfig.retrievalConfig`"],
        ),
        (
            "it is a system message whatever it says",
            Gemini,
            &["`systemInstruction.role`"],
        ),
        ("the path names the model", Gemini, &["`model`"]),
        (UNKNOWN, Gemini, &["a field that the gateway does not know"]),
    ]
};

/// What is told again, in the answer or in lists of items, and not acted on.
pub(crate) const REPEATED: &[Why] = {
    use ClientDialect::Responses;
    &[
        (
            "counts calls of tools that OpenAI runs",
            Responses,
            &["`max_tool_calls`"],
        ),
        (
            "means nothing alone",
            Responses,
            &[
                "`top_logprobs` without it",
                "`prompt_cache_options`: `mode`, `ttl`",
            ],
        ),
        (
            "a `description` within the schema is kept",
            Responses,
            &["a schema's `description` beside it"],
        ),
        (
            "reasoning is shown as the upstream gives it",
            Responses,
            &["`reasoning.summary`", "`reasoning.generate_summary`"],
        ),
        (
            "nothing is cut: what does not fit is an error",
            Responses,
            &["`truncation`"],
        ),
        (
            "kept with what it names",
            Responses,
            &["`metadata`", "`id` of an item", "`status` of an item"],
        ),
        (
            "about OpenAI's cache",
            Responses,
            &["`prompt_cache_options`: `comparison_response_id`"],
        ),
    ]
};

/// The reason for a field of a client's dialect.
pub(crate) fn why(reasons: &[Why], dialect: ClientDialect, field: &str) -> Option<&'static str> {
    reasons
        .iter()
        .find(|(_, known, fields)| *known == dialect && fields.contains(&field))
        .map(|(why, _, _)| *why)
}
