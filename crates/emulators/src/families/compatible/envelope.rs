//! How each provider words an error.

use serde_json::{Value, json};

use super::super::chat_wire;
use crate::Reply;

/// The shapes of error bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Envelope {
    /// `{"error":{"message","type","param","code"}}`.
    OpenAi,
    /// The same with `request_id` beside it (DashScope's chat route).
    DashScope,
    /// `{"code","message","request_id"}` (DashScope's Responses route).
    DashScopeFlat,
    /// `{"error":{"message","type"}}` (Kimi).
    Short,
    /// `{"error":{"code":"1211","message"}}` with a number of its own for each error (Zhipu).
    Zhipu,
    /// `{"code":"...","error":"..."}` (xAI).
    Xai,
    /// `{"object":"error","message","type","param","code"}` (Mistral, SGLang).
    Object,
    /// `{"error":{"object":"error","type","message"}}` (Fireworks).
    Fireworks,
    /// `{"error":{"code":400,"message","metadata"}}` (OpenRouter).
    OpenRouter,
    /// `{"error":{"message","type":"BadRequestError","param":null,"code":400}}` (vLLM).
    Vllm,
    /// `{"error":{"code":400,"message","type"}}` (llama-server).
    LlamaServer,
}

impl Envelope {
    /// An error reply.
    pub(super) fn reply(self, status: u16, message: &str, code: &str) -> Reply {
        Reply::json(status, &self.value(status, message, code))
    }

    /// A failure that a switch ordered.
    pub(super) fn failure(self, status: u16) -> Reply {
        let (message, code) = match status {
            400 => ("Invalid request.", "invalid_request"),
            401 => ("Incorrect API key provided.", "invalid_api_key"),
            402 => ("Insufficient balance.", "insufficient_balance"),
            403 => ("Access denied.", "access_denied"),
            404 => ("The requested resource was not found.", "not_found"),
            408 => ("The request timed out.", "timeout"),
            413 => ("The request is too large.", "request_too_large"),
            429 => (
                "Rate limit reached. Please try again later.",
                "rate_limit_exceeded",
            ),
            503 => (
                "The service is overloaded. Please try again later.",
                "overloaded",
            ),
            _ => ("Internal server error.", "internal_error"),
        };
        self.reply(status, message, code)
    }

    pub(super) fn value(self, status: u16, message: &str, code: &str) -> Value {
        let kind = kind(status);
        match self {
            Envelope::OpenAi => chat_wire::error_value(message, kind, None, Some(code)),
            Envelope::DashScope => {
                let mut value = chat_wire::error_value(message, kind, None, Some(code));
                value["request_id"] = json!(REQUEST_ID);
                value
            }
            Envelope::DashScopeFlat => {
                json!({"request_id": REQUEST_ID, "code": code, "message": message})
            }
            Envelope::Short => json!({"error": {"message": message, "type": code}}),
            Envelope::Zhipu => {
                let number = match status {
                    401 => "1002",
                    404 => "1211",
                    429 => "1302",
                    400 => "1210",
                    _ => "1234",
                };
                json!({"error": {"code": number, "message": message}})
            }
            Envelope::Xai => json!({"code": code, "error": message}),
            Envelope::Object => json!({
                "object": "error", "message": message, "type": kind, "param": null, "code": status,
            }),
            Envelope::Fireworks => {
                json!({"error": {"object": "error", "type": kind, "message": message}})
            }
            Envelope::OpenRouter => {
                json!({"error": {"message": message, "code": status}, "user_id": "user_1"})
            }
            Envelope::Vllm => {
                let kind = match status {
                    400 => "BadRequestError",
                    401 => "Unauthorized",
                    404 => "NotFoundError",
                    _ => "InternalServerError",
                };
                json!({"error": {"message": message, "type": kind, "param": null, "code": status}})
            }
            Envelope::LlamaServer => {
                let kind = match status {
                    501 => "not_supported_error",
                    503 => "unavailable_error",
                    401 => "authentication_error",
                    404 => "not_found_error",
                    400..=499 => "invalid_request_error",
                    _ => "server_error",
                };
                json!({"error": {"code": status, "message": message, "type": kind}})
            }
        }
    }
}

/// DashScope names every request; the emulator needs no more than one name.
const REQUEST_ID: &str = "6f1a2b3c-0d4e-4f5a-8b6c-7d8e9f0a1b2c";

fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "insufficient_quota",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}
