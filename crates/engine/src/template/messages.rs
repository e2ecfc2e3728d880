//! Messages in the form a particular template understands.
//!
//! Templates differ in what they accept: some raise on a system message, on two messages of one role in a row, or on
//! tool calls, and some print nothing for what they do not know. What one accepts is found out once, by rendering small
//! conversations and looking for their words in the output; everything else is expressed in what it does accept.

use holdfast_protocol::chat::{Message, Role, Tool};
use minijinja::Value;
use minijinja::value::Serde;
use serde_json::json;

use super::environment::Jinja;
use crate::error::EngineError;

/// What separates texts that are merged into one message.
const MERGED: &str = "\n\n";

/// What a template accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Abilities {
    /// Content must be a list of parts, not a string.
    content_parts: bool,
    /// A system message at the beginning.
    system: bool,
    /// System messages anywhere.
    system_anywhere: bool,
    /// Two messages of one role in a row.
    same_role_twice: bool,
    /// The `tools` variable.
    tools: bool,
    /// Tool calls and tool results in messages; otherwise they are written into texts.
    calls: Option<CallForm>,
}

/// How a template wants tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CallForm {
    /// Arguments as JSON text instead of an object.
    arguments_text: bool,
    /// Ids of nine letters and digits, as Mistral's templates demand.
    short_ids: bool,
    /// A message of nothing but calls has an empty text as content. Otherwise it has none, which some templates need to
    /// tell a call from an answer.
    empty_content: bool,
}

impl CallForm {
    /// Every form, the most common first.
    fn all() -> impl Iterator<Item = Self> {
        (0..8_u8).map(|bits| CallForm {
            short_ids: bits & 1 != 0,
            arguments_text: bits & 2 != 0,
            empty_content: bits & 4 != 0,
        })
    }
}

impl Abilities {
    /// Finds out what a template accepts.
    pub(super) fn of(jinja: &Jinja, mentions_tools: bool) -> Result<Self, EngineError> {
        let mut abilities = Abilities {
            content_parts: false,
            system: true,
            system_anywhere: true,
            same_role_twice: true,
            tools: mentions_tools,
            calls: None,
        };
        let [user, other] = ["qprobeu", "qprobev"].map(|word| Message::text(Role::User, word));
        let [system, late_system] =
            ["qprobes", "qprobet"].map(|word| Message::text(Role::System, word));
        let assistant = Message::text(Role::Assistant, "qprobea");
        let tool = Tool {
            name: "qprobetool".to_owned(),
            description: None,
            parameters: None,
            strict: None,
        };

        let render = |abilities: &Abilities, messages: &[&Message], tools: &[Tool]| {
            let prepared = abilities.prepare(messages, tools)?;
            jinja.render(prepared.messages, prepared.tools.as_ref(), 0, true)
        };
        let shows =
            |abilities: &Abilities, messages: &[&Message], tools: &[Tool], words: &[&str]| {
                let text = render(abilities, messages, tools)?;
                Ok::<bool, EngineError>(words.iter().all(|word| text.contains(word)))
            };
        let accepts =
            |abilities: &Abilities, messages: &[&Message], tools: &[Tool], words: &[&str]| {
                shows(abilities, messages, tools, words).unwrap_or(false)
            };

        let plain = shows(&abilities, &[&user], &[], &["qprobeu"]);
        if !matches!(plain, Ok(true)) && !accepts(&abilities, &[&system, &user], &[], &["qprobeu"])
        {
            abilities.content_parts = true;
            if !accepts(&abilities, &[&user], &[], &["qprobeu"]) {
                plain?;
                return Err(EngineError::Template(
                    "it does not render a user's message".to_owned(),
                ));
            }
        }
        abilities.system = accepts(&abilities, &[&system, &user], &[], &["qprobes", "qprobeu"]);
        abilities.same_role_twice =
            accepts(&abilities, &[&user, &other], &[], &["qprobeu", "qprobev"]);
        abilities.system_anywhere = abilities.system
            && accepts(
                &abilities,
                &[&system, &late_system, &user],
                &[],
                &["qprobes", "qprobet", "qprobeu"],
            )
            && accepts(
                &abilities,
                &[&user, &assistant, &late_system, &other],
                &[],
                &["qprobet", "qprobev"],
            );
        abilities.tools = mentions_tools
            && (accepts(
                &abilities,
                &[&user],
                std::slice::from_ref(&tool),
                &["qprobetool", "qprobeu"],
            ) || accepts(
                &abilities,
                &[&system, &user],
                std::slice::from_ref(&tool),
                &["qprobetool", "qprobeu"],
            ));

        let mut call = Message {
            content: Vec::new(),
            ..assistant
        };
        call.tool_calls.push(holdfast_protocol::chat::ToolCall {
            id: "call_qprobeabcdefghijklmnopqr".to_owned(),
            name: "qprobetool".to_owned(),
            arguments: r#"{"place": "qprobearg"}"#.to_owned(),
        });
        let mut result = Message::text(Role::Tool, "qproberesult");
        result.tool_call_id = Some("call_qprobeabcdefghijklmnopqr".to_owned());
        abilities.calls = CallForm::all().find(|form| {
            let candidate = Abilities {
                calls: Some(*form),
                ..abilities.clone()
            };
            // Without tools in the request, so that the tool's name can only come from the call.
            let words = ["qprobetool", "qprobearg", "qproberesult"];
            let text = render(&candidate, &[&user, &call, &result], &[]);
            text.is_ok_and(|text| {
                words.iter().all(|word| text.contains(word)) && !text.contains("None")
            })
        });
        Ok(abilities)
    }

    /// Translates a conversation.
    pub(super) fn prepare(
        &self,
        messages: &[&Message],
        tools: &[Tool],
    ) -> Result<Prepared, EngineError> {
        let mut turns: Vec<Turn> = Vec::with_capacity(messages.len() + 1);
        if !self.tools && !tools.is_empty() {
            turns.push(Turn::new("system", describe_tools(tools)));
        }
        // Tools described in words join the first system message, behind its own words.
        let mut described = turns.pop();
        for (index, message) in messages.iter().enumerate() {
            if message.has_media() {
                return Err(EngineError::Template(
                    "this model takes no images".to_owned(),
                ));
            }
            let mut turn = self.turn(message, &messages[..index]);
            if let Some(mut described) = described.take() {
                if turn.role == "system" {
                    turn.append(&described);
                } else {
                    described.role = self.role_of_system(true);
                    turns.push(described);
                }
            }
            if turn.role == "system" {
                let leading = turns.is_empty();
                turn.role = self.role_of_system(leading);
                if let (Some(last), false, true) =
                    (turns.last_mut(), self.system_anywhere, turn.role == "user")
                {
                    // Of several system messages at the beginning the later ones join the first.
                    if last.role == "system" {
                        last.append(&turn);
                        continue;
                    }
                }
            }
            let merges = !self.same_role_twice || !self.system;
            match turns.last_mut() {
                Some(last) if merges && last.takes(&turn) => last.append(&turn),
                _ => turns.push(turn),
            }
        }
        turns.extend(described);
        let messages = turns.iter().map(|turn| turn.to_json(self)).collect();
        let tools =
            (self.tools && !tools.is_empty()).then(|| Value::from(Serde(tools_json(tools))));
        Ok(Prepared {
            messages: Value::from(Serde(serde_json::Value::Array(messages))),
            tools,
        })
    }

    fn role_of_system(&self, leading: bool) -> &'static str {
        if self.system_anywhere || (self.system && leading) {
            "system"
        } else {
            "user"
        }
    }

    fn turn(&self, message: &Message, before: &[&Message]) -> Turn {
        let role = match message.role {
            Role::Developer => "system",
            role => role.as_str(),
        };
        let said = message.joined_text();
        // A refusal is said like any other answer.
        let mut turn = Turn::new(
            role,
            match message.refusal_text() {
                Some(refusal) if said.is_empty() => refusal.to_owned(),
                Some(refusal) => format!("{said}\n{refusal}"),
                None => said,
            },
        );
        turn.name.clone_from(&message.name);
        turn.reasoning.clone_from(&message.reasoning);
        match self.calls {
            Some(form) => {
                let id = |id: &str| {
                    if form.short_ids {
                        short_id(id)
                    } else {
                        id.to_owned()
                    }
                };
                turn.call_id = message.tool_call_id.as_deref().map(id);
                turn.calls = message
                    .tool_calls
                    .iter()
                    .map(|call| call_json(call, &id(&call.id), form))
                    .collect();
                if message.role == Role::Tool && turn.name.is_none() {
                    turn.name = name_of_called(message, before);
                }
            }
            None if message.role == Role::Tool => {
                turn.role = "user";
                turn.content = format!("<tool_response>\n{}\n</tool_response>", turn.content);
            }
            None => {
                for call in &message.tool_calls {
                    let separator = if turn.content.is_empty() { "" } else { "\n" };
                    let name = serde_json::Value::from(call.name.as_str());
                    let text = format!(
                        "{separator}<tool_call>\n{{\"name\": {name}, \"arguments\": {}}}\n</tool_call>",
                        call.arguments
                    );
                    turn.content.push_str(&text);
                }
            }
        }
        turn
    }
}

/// A conversation in Hugging Face's form.
pub(super) struct Prepared {
    pub(super) messages: Value,
    pub(super) tools: Option<Value>,
}

struct Turn {
    role: &'static str,
    content: String,
    name: Option<String>,
    reasoning: Option<String>,
    calls: Vec<serde_json::Value>,
    call_id: Option<String>,
}

impl Turn {
    fn new(role: &'static str, content: String) -> Self {
        Turn {
            role,
            content,
            name: None,
            reasoning: None,
            calls: Vec::new(),
            call_id: None,
        }
    }

    /// Whether `next` can be merged into this turn.
    fn takes(&self, next: &Turn) -> bool {
        self.role == next.role
            && self.role != "tool"
            && self.calls.is_empty()
            && next.calls.is_empty()
    }

    fn append(&mut self, next: &Turn) {
        if !self.content.is_empty() && !next.content.is_empty() {
            self.content.push_str(MERGED);
        }
        self.content.push_str(&next.content);
    }

    /// Keys that say nothing are left out, because templates ask whether they are there.
    fn to_json(&self, abilities: &Abilities) -> serde_json::Value {
        let no_content = self.content.is_empty() && !self.calls.is_empty();
        let content = if no_content && abilities.calls.is_some_and(|form| !form.empty_content) {
            serde_json::Value::Null
        } else if abilities.content_parts {
            json!([{"type": "text", "text": self.content}])
        } else {
            json!(self.content)
        };
        let mut message = json!({"role": self.role, "content": content});
        if let Some(name) = &self.name {
            message["name"] = json!(name);
        }
        if let Some(reasoning) = &self.reasoning {
            message["reasoning_content"] = json!(reasoning);
        }
        if !self.calls.is_empty() {
            message["tool_calls"] = json!(self.calls);
        }
        if let Some(call_id) = &self.call_id {
            message["tool_call_id"] = json!(call_id);
        }
        message
    }
}

fn call_json(
    call: &holdfast_protocol::chat::ToolCall,
    id: &str,
    form: CallForm,
) -> serde_json::Value {
    let parsed =
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&call.arguments);
    let arguments = match parsed {
        Ok(arguments) if !form.arguments_text => json!(arguments),
        _ => json!(call.arguments),
    };
    json!({"type": "function", "id": id, "function": {"name": call.name, "arguments": arguments}})
}

fn short_id(id: &str) -> String {
    let alphanumeric: Vec<char> = id.chars().filter(char::is_ascii_alphanumeric).collect();
    let short: String = alphanumeric[alphanumeric.len().saturating_sub(9)..]
        .iter()
        .collect();
    format!("{short:0>9}")
}

/// OpenAI's tool messages name only the call; some templates print the function's name.
fn name_of_called(result: &Message, before: &[&Message]) -> Option<String> {
    let id = result.tool_call_id.as_ref()?;
    let calls = before.iter().rev().flat_map(|message| &message.tool_calls);
    calls
        .into_iter()
        .find(|call| call.id == *id)
        .map(|call| call.name.clone())
}

fn tools_json(tools: &[Tool]) -> Vec<serde_json::Value> {
    tools
        .iter()
        .map(|tool| {
            let parameters = tool.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
            let description = tool.description.as_deref().unwrap_or_default();
            json!({
                "type": "function",
                "function": {"name": tool.name, "description": description, "parameters": parameters},
            })
        })
        .collect()
}

/// Tools in words, for templates that know none. The notation is the one most open models have seen in training.
fn describe_tools(tools: &[Tool]) -> String {
    let mut text = String::from("You can call these functions, one JSON object per line:\n");
    for tool in tools_json(tools) {
        text.push_str(&tool["function"].to_string());
        text.push('\n');
    }
    text.push_str(
        "To call one, answer with its name and its arguments as JSON between these tags:\n\
         <tool_call>\n{\"name\": \"function name\", \"arguments\": {\"argument name\": \"value\"}}\n</tool_call>\n\
         The result comes back between <tool_response> tags. Answer without a call when none is needed.",
    );
    text
}
