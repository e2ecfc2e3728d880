//! Where a prompt can be cut so that its beginning is the beginning of every prompt that continues it.

use std::collections::HashMap;
use std::sync::Mutex;

use blake3::{Hash, Hasher};

/// Borders that are remembered, at about a hundred bytes each. They are cheap to find again, so that the memory is
/// simply emptied when it is full.
const BORDERS_MAX: usize = 50_000;
/// Up to this many messages each one ends a segment.
const EVERY_MESSAGE_UP_TO: usize = 256;
/// Beyond them every so many do, so that planning a very long conversation costs a bounded number of renderings. The
/// price is that a turn of such a session computes up to this many messages again.
const THEN_EVERY: usize = 8;

/// Whether a segment may end after the `count`-th message.
pub(super) fn is_border(count: usize) -> bool {
    count <= EVERY_MESSAGE_UP_TO || count.is_multiple_of(THEN_EVERY)
}

/// A text known by its length and digest, to be compared with the beginning of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Border {
    length: usize,
    digest: Hash,
}

impl Border {
    pub(super) fn of(text: &str) -> Self {
        Border {
            length: text.len(),
            digest: blake3::hash(text.as_bytes()),
        }
    }
}

/// What kind of text a border was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// The messages rendered by themselves.
    Alone,
    /// What follow-ups of the messages have in common.
    Common,
    /// What follow-ups have in common even when the conversation has gone on for a turn.
    Lasting,
}

/// Borders by what they depend on, so that each turn of a session renders only what is new.
#[derive(Default)]
pub(super) struct Borders {
    known: Mutex<HashMap<(Hash, Kind), Option<Border>>>,
}

impl Borders {
    /// The border of these messages; `None` when there is none.
    pub(super) fn get(
        &self,
        messages: Hash,
        kind: Kind,
        find: impl FnOnce() -> Option<Border>,
    ) -> Option<Border> {
        let lock = || {
            self.known
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        };
        if let Some(border) = lock().get(&(messages, kind)) {
            return *border;
        }
        let border = find();
        let mut known = lock();
        if known.len() >= BORDERS_MAX {
            known.clear();
        }
        known.insert((messages, kind), border);
        border
    }
}

/// Compares borders with one text, reading it only once when they come in order.
pub(super) struct Walk<'a> {
    text: &'a str,
    read: Hasher,
    at: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Walk {
            text,
            read: Hasher::new(),
            at: 0,
        }
    }

    /// How long the border's text is, if `text` begins with it.
    pub(super) fn meets(&mut self, border: Border) -> Option<usize> {
        if border.length < self.at {
            self.read = Hasher::new();
            self.at = 0;
        }
        let more = self.text.get(self.at..border.length)?;
        self.read.update(more.as_bytes());
        self.at = border.length;
        (self.read.finalize() == border.digest).then_some(border.length)
    }
}

/// The longest common beginning.
pub(super) fn common<'a>(left: &'a str, right: &str) -> &'a str {
    let mut length = left
        .bytes()
        .zip(right.bytes())
        .take_while(|(left, right)| left == right)
        .count();
    while !left.is_char_boundary(length) {
        length -= 1;
    }
    &left[..length]
}

/// Takes back what follow-ups merely happen to have in common, to the last place where tokens certainly end: behind a
/// line break, or behind something that looks like a special token (`<|im_start|>`, `</s>`, `[INST]`). So neither a
/// special token nor a word is split.
pub(super) fn back_to_token_end(text: &str) -> &str {
    let line = text.rfind('\n').map_or(0, |at| at + 1);
    let mut end = text.len();
    while let Some(at) = text[line..end].rfind(['>', ']']).map(|at| line + at) {
        if ends_special_token(&text[line..=at]) {
            return &text[..=at];
        }
        end = at;
    }
    &text[..line]
}

fn ends_special_token(text: &str) -> bool {
    let (open, inner): (char, fn(char) -> bool) = match text.chars().last() {
        Some('>') => ('<', |character| {
            !character.is_whitespace() && !matches!(character, '<' | '>')
        }),
        _ => ('[', |character| {
            character.is_ascii_uppercase() || matches!(character, '/' | '_')
        }),
    };
    let body = &text[..text.len() - 1];
    let Some(start) = body.rfind(open) else {
        return false;
    };
    let name = &body[start + 1..];
    (1..=64).contains(&name.len()) && name.chars().all(inner)
}
