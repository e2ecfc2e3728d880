//! `holdfast chat`.

use std::io::{IsTerminal, Read};
use std::time::{Duration, Instant};

use clap::Args;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use crate::client::{ChatStream, Client};

use super::output::{Output, plain};
use super::{Failure, Session, connection, contexts};

const HELP: &str = "\
  /new      forget what was said (not what the context holds)
  /context  show the context
  /quit     leave (so does Ctrl-D); Ctrl-C stops an answer";

#[derive(Debug, Args)]
pub(super) struct ChatArguments {
    /// Ask this and end; without it, questions are read line by line, or from a pipe
    question: Option<String>,
    /// Chat with this context
    #[arg(long, value_name = "ID", conflicts_with = "session")]
    context: Option<String>,
    /// Keep the conversation in a new context, to be continued later
    #[arg(long)]
    session: bool,
    /// Model to ask [default: the context's, or the server's default]
    #[arg(long)]
    model: Option<String>,
    /// Instructions for the model
    #[arg(long, value_name = "TEXT", conflicts_with = "context")]
    system: Option<String>,
    /// Longest answer, tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 always takes the likeliest word, 2 is wild
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
}

/// A conversation with one model.
struct Conversation {
    client: Client,
    output: Output,
    model: String,
    context: Option<String>,
    /// Whether the server remembers turns, so that they are not sent again.
    is_remembered: bool,
    /// Instructions, sent first each time.
    system: Option<String>,
    history: Vec<Value>,
    max_tokens: Option<u32>,
    temperature: Option<f64>,
}

pub(super) async fn run(session: &Session, arguments: ChatArguments) -> Result<(), Failure> {
    let question = match arguments.question.clone() {
        Some(question) => Some(question),
        None if std::io::stdin().is_terminal() => None,
        None => Some(piped()?),
    };
    if question
        .as_ref()
        .is_some_and(|question| question.trim().is_empty())
    {
        return Err(Failure::usage("the question is empty"));
    }
    let mut conversation = Conversation::start(session, arguments)
        .await
        .map_err(|failure| failure.doing("start the chat"))?;
    match question {
        Some(question) => {
            let finished = conversation
                .ask(&question)
                .await
                .map_err(|failure| failure.doing("get an answer"))?;
            if finished {
                Ok(())
            } else {
                Err(Failure::new("the answer was stopped"))
            }
        }
        None => conversation.read_and_ask().await,
    }
}

fn piped() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(format!("standard input can't be read: {error}")))?;
    Ok(text)
}

impl Conversation {
    async fn start(session: &Session, arguments: ChatArguments) -> Result<Self, Failure> {
        let client = connection::client(session)?;
        let mut conversation = Conversation {
            output: session.output,
            model: String::new(),
            context: arguments.context,
            is_remembered: false,
            system: arguments.system,
            history: Vec::new(),
            max_tokens: arguments.max_tokens,
            temperature: arguments.temperature,
            client,
        };
        if let Some(id) = &conversation.context {
            let context = contexts::get(&conversation.client, id).await?;
            conversation.is_remembered = context["mode"] == "session";
            conversation.model = match arguments.model {
                Some(model) => model,
                None => context["model"].as_str().unwrap_or_default().to_owned(),
            };
            return Ok(conversation);
        }
        conversation.model = match arguments.model {
            Some(model) => model,
            None => contexts::default_model(&conversation.client).await?,
        };
        if arguments.session {
            conversation.create_session().await?;
        }
        Ok(conversation)
    }

    /// A context holds at least one message; the instructions are it.
    async fn create_session(&mut self) -> Result<(), Failure> {
        let system = self
            .system
            .take()
            .unwrap_or_else(|| "You are a helpful assistant.".into());
        let body = json!({
            "model": self.model,
            "mode": "session",
            "messages": [{"role": "system", "content": system}],
        });
        let created = contexts::create_from(&self.client, &body).await?;
        let id = created["id"].as_str().unwrap_or_default().to_owned();
        self.output.note(&format!(
            "session {id}; continue it later with: holdfast chat --context {id}"
        ));
        self.context = Some(id);
        self.is_remembered = true;
        Ok(())
    }

    async fn read_and_ask(&mut self) -> Result<(), Failure> {
        self.output
            .aside(&format!("{}; /help shows the commands", plain(&self.model)));
        let no_line = |error: ReadlineError| {
            Failure::new(format!("lines can't be read from this terminal: {error}"))
        };
        // What is typed stays in memory: a history file would keep prompts where nobody expects them.
        let mut editor = DefaultEditor::new().map_err(no_line)?;
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let line = editor.readline("> ");
                (editor, line)
            });
            let (returned, line) = read
                .await
                .map_err(|error| Failure::new(format!("lines can't be read: {error}")))?;
            editor = returned;
            let line = match line {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => {
                    self.output.aside("Ctrl-D or /quit leaves");
                    continue;
                }
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(no_line(error)),
            };
            let _ = editor.add_history_entry(&line);
            match line.trim() {
                "" => {}
                "/quit" | "/exit" => return Ok(()),
                "/help" => self.output.aside(HELP),
                "/new" => {
                    self.history.clear();
                    self.output.aside("forgotten");
                }
                "/context" => self.show_context().await,
                unknown if unknown.starts_with('/') => {
                    self.output
                        .aside(&format!("there is no command `{unknown}`\n{HELP}"));
                }
                question => {
                    // A failed answer is no reason to lose the conversation.
                    if let Err(failure) = self.ask(question).await {
                        self.output.failure(&failure);
                    }
                }
            }
        }
    }

    async fn show_context(&self) {
        let Some(id) = &self.context else {
            self.output
                .aside("this chat has no context; start one with --session or --context");
            return;
        };
        match contexts::get(&self.client, id).await {
            Ok(context) => self.output.aside(&format!(
                "{id}: {} tokens, {} turns",
                context["prefix_tokens"], context["turns"]
            )),
            Err(failure) => self.output.failure(&failure),
        }
    }

    /// Asks and shows the answer as it comes. Says whether it came to its end.
    async fn ask(&mut self, question: &str) -> Result<bool, Failure> {
        let asked = json!({"role": "user", "content": question});
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.extend(self.history.iter().cloned());
        messages.push(asked.clone());
        let mut body = json!({
            "model": self.model,
            "messages": messages,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if let Some(context) = &self.context {
            body["context_id"] = json!(context);
        }
        if let Some(max_tokens) = self.max_tokens {
            body["max_tokens"] = json!(max_tokens);
        }
        if let Some(temperature) = self.temperature {
            body["temperature"] = json!(temperature);
        }
        let mut answer = Answer::default();
        let stopped = tokio::select! {
            received = self.receive(&body, &mut answer) => {
                if answer.is_begun() {
                    self.output.line("");
                }
                received?;
                false
            }
            _ = tokio::signal::ctrl_c() => true,
        };
        if stopped {
            self.output.note("\n(stopped; this turn is not remembered)");
            return Ok(false);
        }
        self.output.aside(&answer.receipt());
        if !self.is_remembered {
            self.history.push(asked);
            self.history
                .push(json!({"role": "assistant", "content": answer.text}));
        }
        Ok(true)
    }

    async fn receive(&self, body: &Value, answer: &mut Answer) -> Result<(), Failure> {
        let started = Instant::now();
        let mut spinner = Some(self.output.spinner("thinking"));
        let mut stream: ChatStream = self
            .client
            .stream(&["v1", "chat", "completions"], body)
            .await?;
        while let Some(chunk) = stream.next().await? {
            let piece = chunk
                .pointer("/choices/0/delta/content")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if !piece.is_empty() {
                spinner.take();
                answer.first_token.get_or_insert_with(|| started.elapsed());
                answer.text.push_str(piece);
                self.output.raw(&visible(piece));
            }
            if let Some(reason) = chunk
                .pointer("/choices/0/finish_reason")
                .and_then(Value::as_str)
            {
                answer.finish_reason = reason.to_owned();
            }
            for (field, kept) in [
                ("usage", &mut answer.usage),
                ("context_cache", &mut answer.cache),
            ] {
                if !chunk[field].is_null() {
                    *kept = chunk[field].clone();
                }
            }
        }
        Ok(())
    }
}

/// An answer and what it cost.
#[derive(Default)]
struct Answer {
    text: String,
    first_token: Option<Duration>,
    finish_reason: String,
    usage: Value,
    cache: Value,
}

impl Answer {
    fn is_begun(&self) -> bool {
        self.first_token.is_some()
    }

    /// One line: what the context did, what was read and written, how soon the answer began.
    fn receipt(&self) -> String {
        let mut parts = Vec::new();
        if let Some(status) = self.cache["status"].as_str() {
            let details: Vec<&str> = ["reason", "tier"]
                .iter()
                .filter_map(|field| self.cache[*field].as_str())
                .collect();
            parts.push(if details.is_empty() {
                format!("context {status}")
            } else {
                format!("context {status} ({})", details.join(", "))
            });
        }
        if let Some(prompt) = self.usage["prompt_tokens"].as_u64() {
            let cached = self
                .usage
                .pointer("/prompt_tokens_details/cached_tokens")
                .and_then(Value::as_u64)
                .unwrap_or(0);
            parts.push(format!("{cached} of {prompt} prompt tokens from cache"));
            parts.push(format!("{} answer tokens", self.usage["completion_tokens"]));
        }
        if let Some(first) = self.first_token {
            parts.push(format!("first token after {:.2} s", first.as_secs_f64()));
        }
        if self.finish_reason == "length" {
            parts.push("cut at the length limit".into());
        }
        plain(&parts.join(" · "))
    }
}

/// A piece of an answer without what could steer the terminal; lines and tabs stay.
fn visible(piece: &str) -> String {
    piece
        .chars()
        .filter(|character| !character.is_control() || matches!(character, '\n' | '\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{Answer, visible};

    #[test]
    fn the_receipt_says_what_the_context_did() {
        let answer = Answer {
            first_token: Some(Duration::from_millis(154)),
            finish_reason: "stop".into(),
            usage: json!({
                "prompt_tokens": 4120,
                "completion_tokens": 31,
                "prompt_tokens_details": {"cached_tokens": 4096},
            }),
            cache: json!({"status": "rebuilt", "reason": "state_lost", "tier": "disk"}),
            ..Answer::default()
        };
        assert_eq!(
            answer.receipt(),
            "context rebuilt (state_lost, disk) · 4096 of 4120 prompt tokens from cache · 31 answer tokens · \
             first token after 0.15 s"
        );
    }

    #[test]
    fn the_receipt_without_a_context_has_no_status() {
        let answer = Answer {
            finish_reason: "length".into(),
            usage: json!({"prompt_tokens": 9, "completion_tokens": 1}),
            ..Answer::default()
        };
        assert_eq!(
            answer.receipt(),
            "0 of 9 prompt tokens from cache · 1 answer tokens · cut at the length limit"
        );
    }

    #[test]
    fn an_answer_can_not_steer_the_terminal() {
        assert_eq!(visible("a\u{1b}[2Jb\n\tc\r"), "a[2Jb\n\tc");
    }
}
