//! Joins the pieces of tool calls, which the dialect's speakers cut and number in many ways.

use serde_json::Value;

use crate::chat::Delta;
use crate::upstream::Failure;

/// The most calls an answer may make.
const CALLS_MAX: usize = 512;
/// Most of a call's arguments that are kept while its name or id has not come, bytes.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// The calls of one choice, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct ToolCalls {
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    /// The upstream's number for it, where it gives one.
    number: Option<u64>,
    id: Option<String>,
    name: Option<String>,
    /// Arguments that came before name and id.
    held: String,
    is_started: bool,
}

impl ToolCalls {
    /// Reads one element of `tool_calls`.
    pub(super) fn read(&mut self, piece: &Value, deltas: &mut Vec<Delta>) -> Result<(), Failure> {
        let piece = piece.as_object().ok_or_else(Failure::malformed)?;
        let number = piece.get("index").and_then(Value::as_u64);
        let id = text(piece.get("id"));
        let function = piece.get("function").and_then(Value::as_object);
        let name = function.and_then(|function| text(function.get("name")));
        let arguments = match function.and_then(|function| function.get("arguments")) {
            Some(Value::String(arguments)) => arguments.clone(),
            // Some send them parsed.
            Some(arguments @ Value::Object(_)) => arguments.to_string(),
            _ => String::new(),
        };
        let index = self.index_of(number, id, name)?;
        let call = &mut self.calls[index];
        if call.id.is_none() {
            call.id = id.map(str::to_owned);
        }
        if call.name.is_none() {
            call.name = name.map(str::to_owned);
        }
        call.held.push_str(&arguments);
        if call.held.len() > HELD_BYTES_MAX && !call.can_start() {
            return Err(Failure::malformed());
        }
        call.give(index, deltas);
        Ok(())
    }

    /// Begins what has waited for an id in vain; `answer` and `choice` make the ids given here unique.
    pub(super) fn finish(
        &mut self,
        answer: &str,
        choice: u32,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), Failure> {
        for (index, call) in self.calls.iter_mut().enumerate() {
            if call.name.is_none() {
                return Err(Failure::malformed());
            }
            if call.id.is_none() {
                call.id = Some(format!("call_{answer}_{choice}_{index}"));
            }
            call.give(index, deltas);
        }
        Ok(())
    }

    /// The call that a piece belongs to; a new one where it begins one.
    fn index_of(
        &mut self,
        number: Option<u64>,
        id: Option<&str>,
        name: Option<&str>,
    ) -> Result<usize, Failure> {
        let known = match (number, id) {
            (Some(number), _) => self
                .calls
                .iter()
                .rposition(|call| call.number == Some(number))
                .filter(|index| !self.calls[*index].is_other(id, name)),
            (None, Some(id)) => self
                .calls
                .iter()
                .rposition(|call| call.id.as_deref() == Some(id))
                .or_else(|| {
                    let last = self.calls.len().checked_sub(1)?;
                    (self.calls[last].id.is_none() && name.is_none()).then_some(last)
                }),
            (None, None) if name.is_some() => {
                let last = self.calls.len().checked_sub(1);
                last.filter(|last| self.calls[*last].name.is_none())
            }
            (None, None) => self.calls.len().checked_sub(1),
        };
        if let Some(index) = known {
            return Ok(index);
        }
        if self.calls.len() >= CALLS_MAX {
            return Err(Failure::malformed());
        }
        self.calls.push(Call {
            number,
            id: None,
            name: None,
            held: String::new(),
            is_started: false,
        });
        Ok(self.calls.len() - 1)
    }
}

impl Call {
    /// Whether a piece with the same number is the beginning of another call all the same: some number every call 0.
    /// An id alone does not tell, because others give each piece a new one.
    fn is_other(&self, id: Option<&str>, name: Option<&str>) -> bool {
        let has_other_id = match (&self.id, id) {
            (Some(known), Some(id)) => known != id,
            _ => false,
        };
        has_other_id && name.is_some() && self.name.is_some()
    }

    fn can_start(&self) -> bool {
        self.id.is_some() && self.name.is_some()
    }

    /// Gives what is there to give.
    fn give(&mut self, index: usize, deltas: &mut Vec<Delta>) {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        if !self.is_started
            && let (Some(id), Some(name)) = (&self.id, &self.name)
        {
            self.is_started = true;
            deltas.push(Delta::ToolCallStart {
                index,
                id: id.clone(),
                name: name.clone(),
            });
        }
        if self.is_started && !self.held.is_empty() {
            deltas.push(Delta::ToolCallArguments {
                index,
                fragment: std::mem::take(&mut self.held),
            });
        }
    }
}

fn text(value: Option<&Value>) -> Option<&str> {
    value
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}
