//! Raw texts continued by the embedded engine: each prompt is a request of its own, and their events are one answer's.

use std::collections::VecDeque;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, SelectAll};
use holdfast_engine::tools::ToolOutput;
use holdfast_engine::{Engine, EngineError, GenerateEvent, GenerateRequest, Generation};
use holdfast_protocol::chat::{ChatEvent, Delta};
use holdfast_protocol::completion::CompletionRequest;
use holdfast_protocol::{ApiError, Usage};

use super::api_error;
use crate::backend::{Answer, AnsweredBy, TextWork};

type Event = (u32, Result<GenerateEvent, EngineError>);

/// Answers to all prompts.
struct Texts {
    /// Before the engine's own events.
    echo: VecDeque<ChatEvent>,
    /// With the number of the prompt's first choice.
    events: SelectAll<BoxStream<'static, Event>>,
    /// Prompts whose answers have not ended.
    left: usize,
    usage: Usage,
}

/// Continues each prompt as it is. Returns when the first answer begins.
pub(super) async fn complete(engine: &Engine, work: TextWork) -> Result<Answer, ApiError> {
    let TextWork { project, request } = work;
    let mut texts = Texts {
        echo: VecDeque::new(),
        events: SelectAll::new(),
        left: request.prompts.len(),
        usage: Usage::default(),
    };
    for (first_choice, prompt) in (0..)
        .step_by(request.choices as usize)
        .zip(&request.prompts)
    {
        let generation = engine
            .generate(generate_request(&project, &request, prompt))
            .await
            .map_err(prompt_error)?;
        texts
            .events
            .push(numbered(first_choice, generation).boxed());
        if request.echo {
            let choices = first_choice..first_choice + request.choices;
            texts.echo.extend(choices.map(|choice| ChatEvent::Delta {
                choice,
                delta: Delta::Text {
                    text: prompt.clone(),
                    logprobs: Vec::new(),
                },
            }));
        }
    }
    // The first thing that any of them says is that it has begun, or why it can't.
    match texts.events.next().await {
        Some((_, Ok(_))) => {}
        Some((_, Err(error))) => return Err(prompt_error(error)),
        None => return Err(api_error(EngineError::Stopped)),
    }
    let events = stream::unfold(Some(texts), |texts| async move {
        let mut texts = texts?;
        let event = texts.next().await;
        let is_last = matches!(event, Err(_) | Ok(ChatEvent::Done { .. }));
        Some((event, (!is_last).then_some(texts)))
    });
    Ok(Answer {
        receipt: None,
        usage: Usage::default(),
        by: AnsweredBy::engine(),
        is_wire: false,
        events: events.boxed(),
    })
}

fn generate_request(project: &str, request: &CompletionRequest, prompt: &str) -> GenerateRequest {
    GenerateRequest {
        project: project.to_owned(),
        prefix: None,
        prefix_held_before: false,
        suffix: vec![prompt.to_owned()],
        sampling: request.sampling.clone(),
        choices: request.choices,
        max_tokens: Some(request.max_tokens),
        stop: request.stop.clone(),
        constraint: None,
        logprobs: None,
        tools: ToolOutput::Raw,
    }
}

fn numbered(first_choice: u32, generation: Generation) -> impl stream::Stream<Item = Event> + Send {
    stream::unfold(generation, move |mut generation| async move {
        let event = generation.next().await?;
        Some(((first_choice, event), generation))
    })
}

impl Texts {
    async fn next(&mut self) -> Result<ChatEvent, ApiError> {
        if let Some(event) = self.echo.pop_front() {
            return Ok(event);
        }
        loop {
            let Some((first_choice, event)) = self.events.next().await else {
                return Err(api_error(EngineError::Stopped));
            };
            match event.map_err(api_error)? {
                GenerateEvent::Started { .. } => {}
                GenerateEvent::Delta { choice, delta } => {
                    let choice = first_choice + choice;
                    return Ok(ChatEvent::Delta { choice, delta });
                }
                GenerateEvent::Finish { choice, reason } => {
                    let choice = first_choice + choice;
                    return Ok(ChatEvent::Finish { choice, reason });
                }
                GenerateEvent::Done {
                    prompt_tokens,
                    output_tokens,
                } => {
                    self.usage.input_tokens += prompt_tokens;
                    self.usage.output_tokens += output_tokens;
                    self.left -= 1;
                    if self.left == 0 {
                        return Ok(ChatEvent::Done {
                            usage: self.usage,
                            receipt: None,
                        });
                    }
                }
            }
        }
    }
}

/// There are no messages that could be wrong.
fn prompt_error(error: EngineError) -> ApiError {
    match error {
        EngineError::Template(_) => ApiError::invalid("prompt", "has no tokens for this model"),
        error => api_error(error),
    }
}
