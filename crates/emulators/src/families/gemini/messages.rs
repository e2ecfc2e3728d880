//! The message types of the requests.

use super::Host::{GeminiApi, Vertex};
use super::proto::Kind::{
    Any, Bool, Bytes, Enum, Float, Int32, Int64, Message as Of, String, Struct,
};
use super::proto::{Message, many, map, message, one, only};

/// `models.generateContent` and `models.streamGenerateContent`.
pub(super) static GENERATE_CONTENT: Message = message(
    "GenerateContentRequest",
    &[
        one("model", String),
        many("contents", Of(&CONTENT)),
        one("system_instruction", Of(&CONTENT)),
        many("tools", Of(&TOOL)),
        one("tool_config", Of(&TOOL_CONFIG)),
        many("safety_settings", Of(&SAFETY_SETTING)),
        one("generation_config", Of(&GENERATION_CONFIG)),
        one("cached_content", String),
        only(Vertex, map("labels", String)),
    ],
);

/// `models.countTokens`.
pub(super) static COUNT_TOKENS: Message = message(
    "CountTokensRequest",
    &[
        one("model", String),
        many("contents", Of(&CONTENT)),
        only(
            GeminiApi,
            one("generate_content_request", Of(&GENERATE_CONTENT)),
        ),
        only(Vertex, one("system_instruction", Of(&CONTENT))),
        only(Vertex, many("tools", Of(&TOOL))),
        only(Vertex, one("generation_config", Of(&GENERATION_CONFIG))),
    ],
);

/// `cachedContents.create` and `cachedContents.patch`.
pub(super) static CACHED_CONTENT: Message = message(
    "CachedContent",
    &[
        one("name", String),
        one("display_name", String),
        one("model", String),
        one("system_instruction", Of(&CONTENT)),
        many("contents", Of(&CONTENT)),
        many("tools", Of(&TOOL)),
        one("tool_config", Of(&TOOL_CONFIG)),
        one("ttl", String),
        one("expire_time", String),
        // Output only: accepted and not looked at.
        one("create_time", String),
        one("update_time", String),
        one("usage_metadata", Any),
        only(Vertex, one("encryption_spec", Any)),
    ],
);

static CONTENT: Message = message("Content", &[many("parts", Of(&PART)), one("role", String)]);

static PART: Message = message(
    "Part",
    &[
        one("text", String),
        one("inline_data", Of(&BLOB)),
        one("file_data", Of(&FILE_DATA)),
        one("function_call", Of(&FUNCTION_CALL)),
        one("function_response", Of(&FUNCTION_RESPONSE)),
        one("executable_code", Any),
        one("code_execution_result", Any),
        one("thought", Bool),
        one("thought_signature", Bytes),
        one("video_metadata", Any),
        one("media_resolution", Any),
    ],
);

static BLOB: Message = message(
    "Blob",
    &[
        one("mime_type", String),
        one("data", Bytes),
        only(Vertex, one("display_name", String)),
    ],
);

static FILE_DATA: Message = message(
    "FileData",
    &[
        one("mime_type", String),
        one("file_uri", String),
        only(Vertex, one("display_name", String)),
    ],
);

static FUNCTION_CALL: Message = message(
    "FunctionCall",
    &[one("id", String), one("name", String), one("args", Struct)],
);

static FUNCTION_RESPONSE: Message = message(
    "FunctionResponse",
    &[
        one("id", String),
        one("name", String),
        one("response", Struct),
        many("parts", Any),
        one("will_continue", Bool),
        one("scheduling", String),
    ],
);

static TOOL: Message = message(
    "Tool",
    &[
        many("function_declarations", Of(&FUNCTION_DECLARATION)),
        one("google_search", Any),
        one("google_search_retrieval", Any),
        one("google_maps", Any),
        one("code_execution", Any),
        one("url_context", Any),
        one("computer_use", Any),
        only(Vertex, one("retrieval", Any)),
        only(Vertex, one("enterprise_web_search", Any)),
    ],
);

static FUNCTION_DECLARATION: Message = message(
    "FunctionDeclaration",
    &[
        one("name", String),
        one("description", String),
        one("parameters", Of(&SCHEMA)),
        one("parameters_json_schema", Any),
        one("response", Of(&SCHEMA)),
        one("response_json_schema", Any),
        one(
            "behavior",
            Enum(
                "FunctionDeclaration.Behavior",
                &["BLOCKING", "NON_BLOCKING"],
            ),
        ),
    ],
);

/// A part of OpenAPI 3.0, not JSON Schema: no `$ref`, no `const`, no list of types, and on the Gemini API no
/// `additionalProperties`.
static SCHEMA: Message = message(
    "Schema",
    &[
        one(
            "type",
            Enum(
                "Type",
                &[
                    "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL",
                ],
            ),
        ),
        one("format", String),
        one("title", String),
        one("description", String),
        one("nullable", Bool),
        many("enum", String),
        one("items", Of(&SCHEMA)),
        one("max_items", Int64),
        one("min_items", Int64),
        map("properties", Of(&SCHEMA)),
        many("required", String),
        one("min_properties", Int64),
        one("max_properties", Int64),
        one("min_length", Int64),
        one("max_length", Int64),
        one("pattern", String),
        one("example", Any),
        many("any_of", Of(&SCHEMA)),
        many("property_ordering", String),
        one("default", Any),
        one("minimum", Float),
        one("maximum", Float),
        only(Vertex, one("additional_properties", Any)),
        only(Vertex, one("ref", String)),
        only(Vertex, map("defs", Of(&SCHEMA))),
    ],
);

static TOOL_CONFIG: Message = message(
    "ToolConfig",
    &[
        one("function_calling_config", Of(&FUNCTION_CALLING_CONFIG)),
        one("retrieval_config", Any),
    ],
);

static FUNCTION_CALLING_CONFIG: Message = message(
    "FunctionCallingConfig",
    &[
        one(
            "mode",
            Enum(
                "FunctionCallingConfig.Mode",
                &["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"],
            ),
        ),
        many("allowed_function_names", String),
        only(Vertex, one("stream_function_call_arguments", Bool)),
    ],
);

static SAFETY_SETTING: Message = message(
    "SafetySetting",
    &[
        one("category", String),
        one("threshold", String),
        only(Vertex, one("method", String)),
    ],
);

static GENERATION_CONFIG: Message = message(
    "GenerationConfig",
    &[
        one("candidate_count", Int32),
        many("stop_sequences", String),
        one("max_output_tokens", Int32),
        one("temperature", Float),
        one("top_p", Float),
        one("top_k", Float),
        one("seed", Int32),
        one("response_mime_type", String),
        one("response_schema", Of(&SCHEMA)),
        one("response_json_schema", Any),
        one("presence_penalty", Float),
        one("frequency_penalty", Float),
        one("response_logprobs", Bool),
        one("logprobs", Int32),
        one("enable_enhanced_civic_answers", Bool),
        many("response_modalities", String),
        one("speech_config", Any),
        one("thinking_config", Of(&THINKING_CONFIG)),
        one("media_resolution", String),
        one("image_config", Any),
        only(Vertex, one("audio_timestamp", Bool)),
        only(Vertex, one("routing_config", Any)),
    ],
);

static THINKING_CONFIG: Message = message(
    "ThinkingConfig",
    &[
        one("include_thoughts", Bool),
        one("thinking_budget", Int32),
        one(
            "thinking_level",
            Enum(
                "ThinkingConfig.ThinkingLevel",
                &["MINIMAL", "LOW", "MEDIUM", "HIGH"],
            ),
        ),
    ],
);
