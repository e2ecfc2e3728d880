//! The waiting line: first come, first served within a project, projects in turn.

use std::collections::{HashMap, VecDeque};

/// Work that waits, by project.
pub(crate) struct FairQueue<T> {
    lines: HashMap<String, VecDeque<T>>,
    /// Projects with waiting work; the front one is served next.
    turns: VecDeque<String>,
    len: usize,
}

impl<T> FairQueue<T> {
    pub(crate) fn new() -> Self {
        FairQueue {
            lines: HashMap::new(),
            turns: VecDeque::new(),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, project: &str, item: T) {
        let line = self.lines.entry(project.to_owned()).or_default();
        if line.is_empty() {
            self.turns.push_back(project.to_owned());
        }
        line.push_back(item);
        self.len += 1;
    }

    /// Takes the next item; its project goes to the end of the turns.
    pub(crate) fn pop(&mut self) -> Option<(String, T)> {
        let project = self.turns.pop_front()?;
        let line = self.lines.get_mut(&project)?;
        let item = line.pop_front()?;
        self.len -= 1;
        if line.is_empty() {
            self.lines.remove(&project);
        } else {
            self.turns.push_back(project.clone());
        }
        Some((project, item))
    }

    /// Puts an item back as the very next.
    pub(crate) fn push_front(&mut self, project: &str, item: T) {
        self.turns.retain(|waiting| waiting != project);
        self.turns.push_front(project.to_owned());
        self.lines
            .entry(project.to_owned())
            .or_default()
            .push_front(item);
        self.len += 1;
    }

    /// Removes what `keep` refuses.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for line in self.lines.values_mut() {
            line.retain(|item| keep(item));
        }
        self.lines.retain(|_, line| !line.is_empty());
        let lines = &self.lines;
        self.turns.retain(|project| lines.contains_key(project));
        self.len = self.lines.values().map(VecDeque::len).sum();
    }

    /// Empties the line.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.turns.clear();
        self.len = 0;
        self.lines.drain().flat_map(|(_, line)| line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_take_turns_and_each_keeps_its_order() {
        let mut queue = FairQueue::new();
        for (project, item) in [
            ("a", 1),
            ("a", 2),
            ("a", 3),
            ("b", 10),
            ("c", 20),
            ("b", 11),
        ] {
            queue.push(project, item);
        }
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop().map(|(_, item)| item)).collect();
        assert_eq!(order, [1, 10, 20, 2, 11, 3]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn an_item_put_back_is_next_and_removed_items_leave_no_turn() {
        let mut queue = FairQueue::new();
        queue.push("a", 1);
        queue.push("b", 2);
        let (project, item) = queue.pop().expect("two items wait");
        queue.push_front(&project, item);
        queue.retain(|item| *item != 2);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.pop(), Some(("a".to_owned(), 1)));
        assert_eq!(queue.pop(), None);
    }
}
