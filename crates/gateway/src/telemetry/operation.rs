//! One chat as the semantic conventions for generative AI see it.

use std::time::Instant;

use holdfast_protocol::{Receipt, Usage};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _};
use opentelemetry_sdk::trace::Span;

use super::Trace;
use crate::backend::AnsweredBy;

/// The operation of all chats, whatever the surface.
const CHAT: &str = "chat";

/// A chat under way. One that is dropped before its end has been cancelled.
pub(crate) struct Operation {
    trace: Trace,
    span: Span,
    started: Instant,
    /// Of all numbers about it.
    attributes: Vec<KeyValue>,
    is_over: bool,
}

impl Operation {
    /// A chat with this configured model has been admitted.
    pub(crate) fn begin(trace: &Trace, model: &str) -> Self {
        let attributes = vec![
            KeyValue::new("gen_ai.operation.name", CHAT),
            KeyValue::new("gen_ai.request.model", model.to_owned()),
        ];
        let tracer = &trace.telemetry.tracer;
        let span = tracer
            .span_builder(format!("{CHAT} {model}"))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes.clone())
            .start_with_context(tracer, &trace.parent());
        Operation {
            trace: trace.clone(),
            span,
            started: Instant::now(),
            attributes,
            is_over: false,
        }
    }

    /// Its answer has begun.
    pub(crate) fn answered(&mut self, by: &AnsweredBy) {
        let provider = KeyValue::new("gen_ai.provider.name", provider_name(by.provider));
        self.span.set_attribute(provider.clone());
        self.attributes.push(provider);
        if !by.model.is_empty() {
            let model = KeyValue::new("gen_ai.response.model", by.model.clone());
            self.span.set_attribute(model.clone());
            self.attributes.push(model);
        }
        if let Some(upstream) = &by.upstream {
            self.span
                .set_attribute(KeyValue::new("holdfast.upstream", upstream.clone()));
        }
        self.trace
            .telemetry
            .first_token
            .record(self.started.elapsed().as_secs_f64(), &self.attributes);
    }

    /// Its answer has ended.
    pub(crate) fn finished(mut self, usage: &Usage, receipt: Option<&Receipt>) {
        let counts = [
            ("gen_ai.usage.input_tokens", usage.input_tokens),
            ("gen_ai.usage.output_tokens", usage.output_tokens),
            (
                "gen_ai.usage.cache_read.input_tokens",
                usage.cached_input_tokens,
            ),
            (
                "gen_ai.usage.cache_creation.input_tokens",
                usage.cache_write_tokens,
            ),
        ];
        for (name, tokens) in counts {
            let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
            self.span.set_attribute(KeyValue::new(name, tokens));
        }
        if let Some(receipt) = receipt {
            let status = receipt.status.as_str();
            self.span
                .set_attribute(KeyValue::new("holdfast.context.cache", status));
        }
        for (kind, tokens) in [
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
        ] {
            let mut attributes = self.attributes.clone();
            attributes.push(KeyValue::new("gen_ai.token.type", kind));
            self.trace.telemetry.token_usage.record(tokens, &attributes);
        }
        self.end(None);
    }

    /// It came to nothing, which the client is told with this HTTP status.
    pub(crate) fn failed(mut self, status: u16) {
        self.end(Some(status.to_string()));
    }

    fn end(&mut self, why: Option<String>) {
        if self.is_over {
            return;
        }
        self.is_over = true;
        if let Some(why) = why {
            let error = KeyValue::new("error.type", why);
            self.span.set_attribute(error.clone());
            self.span.set_status(Status::error(""));
            self.attributes.push(error);
        }
        self.trace
            .telemetry
            .operation_duration
            .record(self.started.elapsed().as_secs_f64(), &self.attributes);
        self.span.end();
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.end(Some("cancelled".to_owned()));
    }
}

/// The conventions' name of a provider where they have one, else ours.
fn provider_name(provider: &'static str) -> &'static str {
    match provider {
        "azure" => "azure.ai.openai",
        "bedrock" => "aws.bedrock",
        "gemini" => "gcp.gemini",
        "vertex" => "gcp.vertex_ai",
        "kimi" => "moonshot_ai",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        other => other,
    }
}
