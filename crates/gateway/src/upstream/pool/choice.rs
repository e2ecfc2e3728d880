//! Which worker of a fleet is asked: weighted rendezvous hashing with bounded loads. Pure functions of names, weights and
//! counts, so that every process and every replica chooses alike.
//!
//! Each worker draws a number for each key, and the highest draw wins (`-weight / ln(u)`, so that a worker wins with its
//! share of the weights). A worker that goes moves only the keys that it had, and one that comes takes only what it wins.
//! A worker that has more than its bounded share of what is under way is passed over, and the next in the key's own
//! order is asked: a key that is in demand spreads over few workers, always the same ones.

/// What a prefix, or the beginning of a chat, is known by. Derived with the tenant's secret, so that what one project's
/// prefix picks says nothing of another's.
pub(crate) type Digest = [u8; 32];

/// A worker that may be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Its share; positive.
    pub(super) weight: f64,
    /// Requests under way.
    pub(super) in_flight: u64,
    /// Whether it takes one more without a wait.
    pub(super) has_room: bool,
}

/// The worker that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// Its place in what was given.
    pub(super) index: usize,
    /// Whether the key's own worker was passed over because of its load.
    pub(super) is_moved: bool,
}

/// What `name` draws for a key; never negative, higher is better.
pub(super) fn score(digest: &Digest, name: &str, weight: f64) -> f64 {
    let hash = blake3::keyed_hash(digest, name.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[..8]);
    // The upper 53 bits, which a float holds exactly, moved into the open interval from 0 to 1.
    let unit = ((u64::from_le_bytes(bytes) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -weight / unit.ln()
}

/// The places of `workers` (name and weight) in the order in which the key asks them.
pub(super) fn order<'a>(
    digest: &Digest,
    workers: impl IntoIterator<Item = (&'a str, f64)>,
) -> Vec<usize> {
    let mut drawn: Vec<(f64, &str, usize)> = workers
        .into_iter()
        .enumerate()
        .map(|(index, (name, weight))| (score(digest, name, weight), name, index))
        .collect();
    // Names are unique, so that equal draws have an order, too.
    drawn.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    drawn.into_iter().map(|(_, _, index)| index).collect()
}

/// How much a worker may have under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bound {
    /// How many times its share; at least 1.
    pub(super) factor: f64,
    /// So many in any case; at least 1.
    pub(super) least: u64,
}

impl Bound {
    /// How many requests a worker may have under way, counting the one that is about to go there.
    pub(super) fn of(self, in_flight_total: u64, weight: f64, weight_total: f64) -> u64 {
        let share = self.factor * (in_flight_total + 1) as f64 * weight / weight_total;
        // What is left of a whole number after floats were multiplied is no further request.
        ((share - 1e-9).ceil() as u64).max(self.least)
    }
}

/// The first in `order` that is below its bound. With a factor of at least 1 there always is one, because all bounds
/// together are more than what is under way; where none of those has room, the first of them is waited for.
pub(super) fn choose(order: &[usize], loads: &[Load], bound: Bound) -> Option<Choice> {
    let in_flight_total: u64 = loads.iter().map(|load| load.in_flight).sum();
    let weight_total: f64 = loads.iter().map(|load| load.weight).sum();
    let is_below = |index: &usize| {
        let load = &loads[*index];
        load.in_flight < bound.of(in_flight_total, load.weight, weight_total)
    };
    let mut below = order.iter().filter(|index| is_below(index));
    let found = below
        .clone()
        .find(|index| loads[**index].has_room)
        .or_else(|| below.next())
        .or_else(|| order.first())?;
    Some(Choice {
        index: *found,
        is_moved: order.first() != Some(found),
    })
}

/// The one with the least under way for its weight; of equals the first in `order`, which is by chance here.
pub(super) fn least(order: &[usize], loads: &[Load]) -> Option<Choice> {
    let per_weight = |index: &usize| loads[*index].in_flight as f64 / loads[*index].weight;
    let found = order.iter().min_by(|a, b| {
        let room = loads[**b].has_room.cmp(&loads[**a].has_room);
        room.then_with(|| per_weight(a).total_cmp(&per_weight(b)))
    })?;
    Some(Choice {
        index: *found,
        is_moved: false,
    })
}

#[cfg(test)]
mod tests;
