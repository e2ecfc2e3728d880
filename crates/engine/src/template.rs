//! The chat template of a model file: messages to prompt text, cut where a prefix cache can cut.
//!
//! The template's own Jinja text is the only renderer, and a plan is always a cut of its full rendering: no text is
//! composed here. A context's prefix is what every prompt that continues the context begins with. For most templates
//! that is the rendering of its messages alone; where it is not (a template that merges the system message into the
//! user's, drops earlier thoughts, or refuses unfinished conversations), it is found by rendering two different
//! follow-ups and keeping what they have in common.
//!
//! Text is not escaped: a message that spells out a special token writes that token, as with the model's own tools.

mod cuts;
mod environment;
mod messages;
#[cfg(test)]
mod tests;

use blake3::{Hash, Hasher};
use holdfast_protocol::UnixMillis;
use holdfast_protocol::chat::{Message, Role, Tool};
use serde::Serialize;

use self::cuts::{Border, Borders, Kind, Walk};
use self::environment::Jinja;
use self::messages::Abilities;
use crate::error::EngineError;

/// A context's own part of every prompt that continues it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrefixPlan {
    /// Text segments, none of them empty: the initial messages, then each history message. Borders that the template
    /// does not keep are left out; what will move when the conversation goes on is a last segment of its own. No
    /// segments: the template gives no usable prefix.
    pub segments: Vec<String>,
}

/// A whole prompt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptPlan {
    /// The leading segments of the context's [`PrefixPlan`] with which this prompt begins.
    pub prefix: Vec<String>,
    /// The rest: a segment per message as far as the template keeps borders, then the generation prompt.
    pub suffix: Vec<String>,
    /// Whether `prefix` is the whole of the context's plan.
    pub prefix_stable: bool,
}

/// A compiled chat template. Plans are pure functions of their arguments.
pub struct ChatTemplate {
    jinja: Jinja,
    abilities: Abilities,
    uses_date: bool,
    borders: Borders,
}

impl ChatTemplate {
    /// Compiles a template and finds out what it accepts.
    ///
    /// # Errors
    /// `Template` when it does not parse or does not render a user's message.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self, EngineError> {
        let jinja = Jinja::new(source, bos_token, eos_token)?;
        let abilities = Abilities::of(&jinja, mentions(source, "tools"))?;
        Ok(ChatTemplate {
            jinja,
            abilities,
            uses_date: mentions(source, "strftime_now"),
            borders: Borders::default(),
        })
    }

    /// The whole prompt as text, ready for the model to answer. `now` is what the template takes for today's date: pass
    /// the context's creation time, so that a prompt's beginning is the same tomorrow.
    ///
    /// # Errors
    /// `Template` with the template's own words when it refuses the messages.
    pub fn render(
        &self,
        messages: &[Message],
        tools: &[Tool],
        now: UnixMillis,
    ) -> Result<String, EngineError> {
        let conversation = Conversation::new(self, &[messages], tools, now);
        conversation.render(conversation.messages.len(), &[], true)
    }

    /// What every prompt begins with that continues `initial` and `history` with the same `tools` and `now`.
    ///
    /// # Errors
    /// `Template` when the template refuses the messages whatever follows.
    pub fn plan_prefix(
        &self,
        initial: &[Message],
        history: &[Message],
        tools: &[Tool],
        now: UnixMillis,
    ) -> Result<PrefixPlan, EngineError> {
        let conversation = Conversation::new(self, &[initial, history], tools, now);
        let count = initial.len() + history.len();
        if count == 0 {
            return Ok(PrefixPlan::default());
        }
        let text = conversation.prefix_text(count)?;
        let cuts = conversation.prefix_cuts(&text, initial.len(), count);
        Ok(PrefixPlan {
            segments: segments(&text, &cuts),
        })
    }

    /// The prompt for `new` messages after those of a context. Joined together, `prefix` and `suffix` are what
    /// [`ChatTemplate::render`] gives for all messages.
    ///
    /// # Errors
    /// `Template` with the template's own words when it refuses the messages.
    pub fn plan(
        &self,
        initial: &[Message],
        history: &[Message],
        new: &[Message],
        tools: &[Tool],
        now: UnixMillis,
    ) -> Result<PromptPlan, EngineError> {
        let conversation = Conversation::new(self, &[initial, history, new], tools, now);
        let (context, count) = (initial.len() + history.len(), conversation.messages.len());
        let prompt = conversation.render(count, &[], true)?;

        let (prefix, prefix_stable) = if context == 0 {
            (Vec::new(), true)
        } else {
            let text = conversation.prefix_text_within(&prompt, context)?;
            let cuts = conversation.prefix_cuts(&text, initial.len(), context);
            let all = segments(&text, &cuts);
            let whole = all.len();
            let mut end = 0;
            let kept: Vec<String> = all
                .into_iter()
                .take_while(|segment| {
                    let begins = prompt[end..].starts_with(segment.as_str());
                    end += if begins { segment.len() } else { 0 };
                    begins
                })
                .collect();
            let stable = kept.len() == whole && whole > 0;
            (kept, stable)
        };

        let end = prefix.iter().map(String::len).sum();
        let mut cuts = Vec::new();
        let mut walk = Walk::new(&prompt);
        for border in initial.len().max(1)..=count {
            if !cuts::is_border(border) && border != count {
                continue;
            }
            let met = conversation
                .border(border, Kind::Alone)
                .and_then(|border| walk.meets(border));
            cuts.extend(
                met.filter(|cut| *cut > cuts.last().copied().unwrap_or(end))
                    .map(|cut| cut - end),
            );
        }
        Ok(PromptPlan {
            prefix,
            suffix: segments(&prompt[end..], &cuts),
            prefix_stable,
        })
    }
}

/// One conversation under one template. Borders are numbered by how many messages lie before them.
struct Conversation<'a> {
    template: &'a ChatTemplate,
    messages: Vec<&'a Message>,
    tools: &'a [Tool],
    now: UnixMillis,
    /// For each border: the digest of everything that what comes before it depends on.
    digests: Vec<Hash>,
}

impl<'a> Conversation<'a> {
    fn new(
        template: &'a ChatTemplate,
        parts: &[&'a [Message]],
        tools: &'a [Tool],
        now: UnixMillis,
    ) -> Self {
        let messages: Vec<&Message> = parts.iter().copied().flatten().collect();
        let mut hasher = Hasher::new();
        hasher.update(&if template.uses_date { now } else { 0 }.to_le_bytes());
        let mut digests = Vec::with_capacity(messages.len() + 1);
        digests.push(digest(&mut hasher, tools));
        digests.extend(messages.iter().map(|message| digest(&mut hasher, message)));
        Conversation {
            template,
            messages,
            tools,
            now,
            digests,
        }
    }

    /// Renders the first `count` messages and `more`.
    fn render(
        &self,
        count: usize,
        more: &[Message],
        generation_prompt: bool,
    ) -> Result<String, EngineError> {
        let messages: Vec<&Message> = self.messages[..count].iter().copied().chain(more).collect();
        let prepared = self.template.abilities.prepare(&messages, self.tools)?;
        self.template.jinja.render(
            prepared.messages,
            prepared.tools.as_ref(),
            self.now,
            generation_prompt,
        )
    }

    /// What prompts that continue the first `count` messages have in common, up to a place where tokens end.
    fn prefix_text(&self, count: usize) -> Result<String, EngineError> {
        let alone = self.render(count, &[], false);
        let (left, right) = match (self.probe(count, "a"), self.probe(count, "b"), &alone) {
            (Ok(left), Ok(right), _) => (left, right),
            // What follows is unlike the probes; whether this prefix holds is seen when it does follow.
            (_, _, Ok(_)) => return alone,
            (Err(error), ..) | (_, Err(error), _) => return Err(error),
        };
        let common = cuts::common(&left, &right);
        match alone {
            Ok(alone) if common.starts_with(&alone) => Ok(alone),
            _ => Ok(cuts::back_to_token_end(common).to_owned()),
        }
    }

    /// The same, without rendering anything when it is known and `prompt` begins with it.
    fn prefix_text_within(&self, prompt: &str, count: usize) -> Result<String, EngineError> {
        let known = self
            .border(count, Kind::Common)
            .and_then(|border| Walk::new(prompt).meets(border));
        known.map_or_else(
            || self.prefix_text(count),
            |length| Ok(prompt[..length].to_owned()),
        )
    }

    /// What remains of the prefix when the conversation has gone on: some templates put the system message or the tools
    /// into the last question, others drop thoughts once they are old.
    fn lasting_text(&self, count: usize) -> Result<String, EngineError> {
        let mut later = self.follow_up(count, "a");
        later.extend([
            Message::text(Role::Assistant, "a"),
            Message::text(Role::User, "a"),
        ]);
        let (now, later) = (self.probe(count, "b")?, self.render(count, &later, true)?);
        Ok(cuts::back_to_token_end(cuts::common(&now, &later)).to_owned())
    }

    /// The prompt for a likely continuation.
    fn probe(&self, count: usize, word: &str) -> Result<String, EngineError> {
        self.render(count, &self.follow_up(count, word), true)
    }

    /// Results for open tool calls, otherwise a question.
    fn follow_up(&self, count: usize, word: &str) -> Vec<Message> {
        let calls = self.messages[..count]
            .last()
            .map_or(&[][..], |message| &message.tool_calls);
        if calls.is_empty() {
            return vec![Message::text(Role::User, word)];
        }
        let answer = |id: &String| Message {
            tool_call_id: Some(id.clone()),
            ..Message::text(Role::Tool, word)
        };
        calls.iter().map(|call| answer(&call.id)).collect()
    }

    /// Places to cut a context's prefix of `count` messages, the first `initial` of which are one piece.
    fn prefix_cuts(&self, text: &str, initial: usize, count: usize) -> Vec<usize> {
        let mut cuts: Vec<usize> = Vec::new();
        let mut walk = Walk::new(text);
        for border in initial.max(1)..=count {
            if !cuts::is_border(border) && border != count {
                continue;
            }
            let mut met = |kind| {
                self.border(border, kind)
                    .and_then(|border| walk.meets(border))
            };
            let cut = met(Kind::Alone).or_else(|| met(Kind::Lasting));
            cuts.extend(
                cut.filter(|cut| *cut > cuts.last().copied().unwrap_or(0) && *cut < text.len()),
            );
        }
        cuts
    }

    fn border(&self, count: usize, kind: Kind) -> Option<Border> {
        let digest = *self.digests.get(count)?;
        self.template.borders.get(digest, kind, || {
            let text = match kind {
                Kind::Alone => self.render(count, &[], false),
                Kind::Common => self.prefix_text(count),
                Kind::Lasting => self.lasting_text(count),
            };
            text.ok().map(|text| Border::of(&text))
        })
    }
}

/// Adds a value to a running digest.
fn digest(hasher: &mut Hasher, value: &(impl Serialize + ?Sized)) -> Hash {
    let json = serde_json::to_vec(value).expect("messages and tools have string keys only");
    hasher.update(&json);
    hasher.update(b"\n");
    hasher.finalize()
}

/// Cuts a text; the cuts are in order and inside it. No piece is empty.
fn segments(text: &str, cuts: &[usize]) -> Vec<String> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(text.len()));
    starts
        .zip(ends)
        .filter(|(start, end)| start < end)
        .map(|(start, end)| text[start..end].to_owned())
        .collect()
}

/// Whether a template's source has this word, apart from longer words that contain it.
fn mentions(source: &str, word: &str) -> bool {
    let inside_word = |character: char| character.is_alphanumeric() || character == '_';
    source.match_indices(word).any(|(at, _)| {
        !source[..at].ends_with(inside_word) && !source[at + word.len()..].starts_with(inside_word)
    })
}
