//! Shared steps of the tests.

use std::path::Path;
use std::sync::Arc;

use holdfast_engine::tools::ToolOutput;
use holdfast_engine::{
    Engine, EngineOptions, GenerateEvent, GenerateRequest, Generation, Prefix, PrefixUse,
};
use holdfast_protocol::chat::{Delta, FinishReason, Sampling};

/// What an answer came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) texts: Vec<String>,
    pub(crate) reasons: Vec<Option<FinishReason>>,
    pub(crate) prefix: Option<PrefixUse>,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        &self.texts[0]
    }
}

pub(crate) fn options() -> EngineOptions {
    EngineOptions::new("unused".into())
}

pub(crate) fn options_on_disk(folder: &Path) -> EngineOptions {
    EngineOptions {
        state_dir: Some(folder.to_owned()),
        ..options()
    }
}

pub(crate) fn tiny(options: EngineOptions) -> Engine {
    Engine::start_tiny(options).unwrap()
}

/// A turn in ChatML.
pub(crate) fn message(role: &str, text: &str) -> String {
    format!("<|im_start|>{role}\n{text}<|im_end|>\n")
}

/// A question and the beginning of its answer.
pub(crate) fn question(text: &str) -> Vec<String> {
    vec![message("user", text) + "<|im_start|>assistant\n"]
}

pub(crate) fn prefix(engine: &Engine, project: &str, texts: &[&str]) -> Arc<Prefix> {
    let segments: Vec<String> = texts.iter().map(|text| message("user", text)).collect();
    engine.prefix(project, &segments)
}

pub(crate) fn request(prefix: Option<&Arc<Prefix>>, suffix: Vec<String>) -> GenerateRequest {
    GenerateRequest {
        project: "p".into(),
        prefix: prefix.cloned(),
        prefix_held_before: false,
        suffix,
        sampling: Sampling {
            temperature: Some(0.0),
            ..Sampling::default()
        },
        choices: 1,
        max_tokens: Some(48),
        stop: Vec::new(),
        constraint: None,
        logprobs: None,
        tools: ToolOutput::None,
    }
}

pub(crate) async fn collect(mut generation: Generation) -> Answer {
    let mut answer = Answer::default();
    while let Some(event) = generation.next().await {
        match event.unwrap() {
            GenerateEvent::Started { prefix, .. } => answer.prefix = prefix,
            GenerateEvent::Delta { choice, delta } => {
                let index = choice as usize;
                if answer.texts.len() <= index {
                    answer.texts.resize(index + 1, String::new());
                }
                match delta {
                    Delta::Text { text, .. } | Delta::Reasoning { text } => {
                        answer.texts[index].push_str(&text)
                    }
                    Delta::ToolCallStart { name, .. } => {
                        answer.texts[index].push_str(&format!("{name}:"))
                    }
                    Delta::ToolCallArguments { fragment, .. } => {
                        answer.texts[index].push_str(&fragment)
                    }
                    Delta::StopSequence { .. } => {}
                    Delta::ReasoningSignature { .. } | Delta::Refusal { .. } => {
                        panic!("the engine neither seals nor refuses")
                    }
                }
            }
            GenerateEvent::Finish { choice, reason } => {
                let index = choice as usize;
                if answer.reasons.len() <= index {
                    answer.reasons.resize(index + 1, None);
                }
                answer.reasons[index] = Some(reason);
            }
            GenerateEvent::Done {
                prompt_tokens,
                output_tokens,
            } => {
                answer.prompt_tokens = prompt_tokens;
                answer.output_tokens = output_tokens;
            }
        }
    }
    answer
}

pub(crate) async fn ask(
    engine: &Engine,
    prefix: Option<&Arc<Prefix>>,
    suffix: Vec<String>,
) -> Answer {
    collect(engine.generate(request(prefix, suffix)).await.unwrap()).await
}
