//! The prefix cache: which prefixes are resident, in which tier, and who needs them.
//!
//! Prefixes form a tree of segments. A segment's saved state holds only its own tokens, so a session's growth writes
//! only what is new, and a fork shares everything it has in common with its parent. (Models whose state can't be cut
//! save whole states instead, exactly at each prefix's end.)
//!
//! - KV: a sequence of the model's KV cache that ends at the prefix's end. Others share its cells without a copy.
//! - RAM: saved states. Every prefix that is in KV also has its states here or on disk, so leaving KV costs nothing.
//! - Disk: the same bytes with a checksum.
//!
//! A segment lives while a pin or a running request needs it; pinned state leaves a tier only when the tier below has
//! it or there is no room at all.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use holdfast_protocol::usage::CacheTier;

use crate::disk::{DiskTier, ReadFailure, StateBytes, pin_file_name};
use crate::error::EngineError;
use crate::model::{Model, Sequence};
use crate::prefix::{Prefix, PrefixKey};
use crate::sequences::Sequences;

#[derive(Default)]
struct Node {
    parent: Option<PrefixKey>,
    /// Pins and running requests whose chain goes through here.
    holders: u32,
    /// Of the holders, pins.
    pins: u32,
    /// A sequence that ends exactly at this segment's end.
    sequence: Option<Sequence>,
    /// Running requests that have attached to `sequence`.
    borrowers: u32,
    ram: Option<StateBytes>,
    /// A build is computing it.
    building: bool,
    /// It has been computed before, so computing it again is a rebuild.
    built: bool,
    /// Its saved state turned out damaged.
    corrupt: bool,
    last_used: u64,
}

/// What [`PrefixCache::attach`] found.
#[derive(Debug)]
pub(crate) enum Attached {
    /// `sequence` ends exactly at the prefix's end and is borrowed until [`PrefixCache::detach`].
    Ready { sequence: Sequence, tier: CacheTier },
    /// `sequence` (given to the caller) holds the segments before `next`; the caller computes the rest.
    Compute {
        sequence: Sequence,
        next: usize,
        /// Why anything must be computed.
        reason: MissReason,
        /// Where the part that is there was found.
        tier: Option<CacheTier>,
    },
    /// Somebody else is computing a segment of it.
    Wait,
    /// No sequence or no cells: try again when something has finished.
    NoRoom,
}

/// Why a prefix had to be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissReason {
    /// It never was before.
    FirstUse,
    /// Its state is gone from all tiers.
    StateLost,
    /// Its state was there and damaged.
    StateCorrupt,
}

impl MissReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            MissReason::FirstUse => "first_use",
            MissReason::StateLost => "state_lost",
            MissReason::StateCorrupt => "state_corrupt",
        }
    }
}

/// Budgets of the tiers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheLimits {
    /// Bytes of saved states in memory.
    pub(crate) ram_bytes_max: u64,
    /// Cells idle prefixes may hold. Attention reads every used cell at every step, so idle ones slow all others.
    pub(crate) idle_tokens_max: u32,
}

/// See the module's documentation.
pub(crate) struct PrefixCache {
    nodes: HashMap<PrefixKey, Node>,
    pins: HashMap<String, Vec<PrefixKey>>,
    disk: Option<DiskTier>,
    ram_bytes: u64,
    limits: CacheLimits,
    cuttable: bool,
    clock: u64,
    /// Tokens read back from RAM or disk.
    pub(crate) restored_tokens: u64,
}

impl PrefixCache {
    pub(crate) fn new(disk: Option<DiskTier>, limits: CacheLimits, cuttable: bool) -> Self {
        let mut cache = PrefixCache {
            nodes: HashMap::new(),
            pins: HashMap::new(),
            disk: None,
            ram_bytes: 0,
            limits,
            cuttable,
            clock: 0,
            restored_tokens: 0,
        };
        for (pin, chain) in disk.as_ref().map(DiskTier::pins).unwrap_or_default() {
            cache.hold_chain(&chain, true);
            for key in &chain {
                if let Some(node) = cache.nodes.get_mut(key) {
                    node.built = true;
                }
            }
            cache.pins.insert(pin, chain);
        }
        cache.disk = disk;
        cache
    }

    /// Bytes of saved states in memory.
    pub(crate) fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    /// Bytes of state files.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, DiskTier::bytes)
    }

    /// Pins in force.
    pub(crate) fn pinned(&self) -> usize {
        self.pins.len()
    }

    /// Puts a pin on a prefix; one of the same name moves.
    pub(crate) fn pin<M: Model>(
        &mut self,
        pin: &str,
        prefix: &Prefix,
        sequences: &mut Sequences<M>,
    ) {
        let name = pin_file_name(pin);
        let chain = chain_of(prefix);
        if self.pins.get(&name) == Some(&chain) {
            return;
        }
        self.hold_chain(&chain, true);
        if let Some(disk) = &mut self.disk {
            disk.write_pin(&name, chain.clone());
        }
        let unsaved: Vec<PrefixKey> = chain.clone();
        let former = self.pins.insert(name, chain);
        for key in unsaved {
            self.write_to_disk(key);
        }
        if let Some(former) = former {
            self.let_go(&former, true, sequences);
        }
    }

    /// Takes a pin away; state that nobody else holds goes from every tier.
    pub(crate) fn unpin<M: Model>(&mut self, pin: &str, sequences: &mut Sequences<M>) {
        let name = pin_file_name(pin);
        if let Some(chain) = self.pins.remove(&name) {
            if let Some(disk) = &mut self.disk {
                disk.remove_pin(&name);
            }
            self.let_go(&chain, true, sequences);
        }
    }

    /// Takes away all pins that are not in `living`, and files that no pin needs.
    pub(crate) fn retain_pins<M: Model>(
        &mut self,
        living: &HashSet<String>,
        sequences: &mut Sequences<M>,
    ) {
        let living: HashSet<String> = living.iter().map(|pin| pin_file_name(pin)).collect();
        let dead: Vec<String> = self
            .pins
            .keys()
            .filter(|pin| !living.contains(*pin))
            .cloned()
            .collect();
        for pin in dead {
            self.unpin(&pin, sequences);
        }
        if let Some(disk) = &mut self.disk {
            for key in disk.keys() {
                if !self.nodes.contains_key(&key) {
                    disk.remove(&key);
                }
            }
        }
    }

    /// A running request or build begins to need a prefix.
    pub(crate) fn hold(&mut self, prefix: &Prefix) {
        self.hold_chain(&chain_of(prefix), false);
    }

    /// It does not need it any more.
    pub(crate) fn unhold<M: Model>(&mut self, prefix: &Prefix, sequences: &mut Sequences<M>) {
        self.let_go(&chain_of(prefix), false, sequences);
    }

    /// Finds or restores a held prefix. See [`Attached`].
    ///
    /// `alone` says that nothing is being computed. Idle prefixes then make way first, so that this one stands in the
    /// KV cache as in a cold run: the same answer to the token, and no cells for attention to read in vain.
    pub(crate) fn attach<M: Model>(
        &mut self,
        prefix: &Prefix,
        alone: bool,
        sequences: &mut Sequences<M>,
    ) -> Attached {
        self.clock += 1;
        let segments = prefix.segments();
        for segment in segments {
            if let Some(node) = self.nodes.get_mut(&segment.key) {
                node.last_used = self.clock;
                if node.building {
                    return Attached::Wait;
                }
            }
        }
        // Each round that fails on damaged state forgets that state, so the rounds are bounded by the segments.
        loop {
            if let Some(attached) = self.try_attach(prefix, alone, sequences) {
                return attached;
            }
        }
    }

    fn try_attach<M: Model>(
        &mut self,
        prefix: &Prefix,
        alone: bool,
        sequences: &mut Sequences<M>,
    ) -> Option<Attached> {
        let segments = prefix.segments();
        let tip = prefix.tip()?;
        let restorable = |cache: &Self, upto: usize| {
            segments[..=upto]
                .iter()
                .all(|segment| cache.has_state(&segment.key))
        };
        let usable = |cache: &Self, index: usize, sequence: Sequence| {
            !alone || sequences.is_compact(sequence) || !restorable(cache, index)
        };
        if let Some(sequence) = self.nodes.get(&tip).and_then(|node| node.sequence)
            && usable(self, segments.len() - 1, sequence)
        {
            self.borrow(&tip);
            if alone {
                while self.evict_one(Some(sequence), sequences) {}
            }
            return Some(Attached::Ready {
                sequence,
                tier: CacheTier::Kv,
            });
        }

        let shared = (0..segments.len()).rev().find_map(|index| {
            let sequence = self.sequence_through(&segments[index].key)?;
            usable(self, index, sequence).then_some((index + 1, sequence))
        });
        if alone {
            let keep = shared.map(|(_, sequence)| sequence);
            while self.evict_one(keep, sequences) {}
        }
        let (start, base, restore) = self.plan_restore(prefix, shared);
        let base_end = match (start, &restore) {
            (0, _) => 0,
            (count, _) => segments[count - 1].positions().end,
        };
        let needed = u32::try_from(prefix.tokens()).unwrap_or(u32::MAX) - base_end;
        if !self.make_room(needed, 1, base, sequences) {
            return Some(Attached::NoRoom);
        }
        let sequence = sequences.take()?;
        let mut tier = None;
        if let Some(base) = base {
            sequences.share(base, sequence, base_end);
            tier = Some(CacheTier::Kv);
            if alone {
                while self.evict_one(None, sequences) {}
            }
        }
        for index in restore.clone() {
            let segment = &segments[index];
            match self.load_segment(&segment.key, segment.positions(), sequence, sequences) {
                Ok(found) => tier = tier.max_tier(found),
                Err(failure) => {
                    sequences.release(sequence);
                    self.forget_state(&segment.key, failure);
                    return None;
                }
            }
        }
        let next = restore.end.max(start);
        if next == segments.len() {
            self.make_resident(&tip, sequence, sequences);
            self.borrow(&tip);
            return Some(Attached::Ready {
                sequence,
                tier: tier.unwrap_or(CacheTier::Kv),
            });
        }
        let reason = self.miss_reason(&segments[next].key);
        for segment in &segments[next..] {
            if let Some(node) = self.nodes.get_mut(&segment.key) {
                node.building = true;
            }
        }
        Some(Attached::Compute {
            sequence,
            next,
            reason,
            tier,
        })
    }

    /// Decides what to share and which saved states to load: `(segments shared, from which sequence, segments to load)`.
    fn plan_restore(
        &self,
        prefix: &Prefix,
        shared: Option<(usize, Sequence)>,
    ) -> (usize, Option<Sequence>, Range<usize>) {
        let segments = prefix.segments();
        let (start, base) = shared.map_or((0, None), |(count, sequence)| (count, Some(sequence)));
        if self.cuttable {
            let end = (start..segments.len())
                .find(|index| !self.has_state(&segments[*index].key))
                .unwrap_or(segments.len());
            return (start, base, start..end);
        }
        // Whole states: the longest one wins over a shorter shared sequence.
        match (start..segments.len())
            .rev()
            .find(|index| self.has_state(&segments[*index].key))
        {
            Some(index) => (0, None, index..index + 1),
            None => (start, base, start..start),
        }
    }

    /// Gives an attached sequence back.
    pub(crate) fn detach(&mut self, prefix: &Prefix) {
        if let Some(node) = prefix.tip().and_then(|tip| self.nodes.get_mut(&tip)) {
            node.borrowers = node.borrowers.saturating_sub(1);
        }
    }

    /// A build has computed segment `index` in `sequence`: keeps its state.
    pub(crate) fn segment_built<M: Model>(
        &mut self,
        prefix: &Prefix,
        index: usize,
        sequence: Sequence,
        sequences: &mut Sequences<M>,
    ) -> Result<(), EngineError> {
        let segment = &prefix.segments()[index];
        let state = Arc::new(sequences.save(sequence, segment.positions())?);
        if !self.cuttable {
            // Saving drops the cells outside a sliding window. Going on from what was saved, as every later use will,
            // is what makes them all alike.
            sequences.replace(sequence, segment.positions().end, &state)?;
        }
        let Some(node) = self.nodes.get_mut(&segment.key) else {
            return Ok(());
        };
        node.building = false;
        node.built = true;
        node.corrupt = false;
        self.ram_bytes += state.len() as u64;
        if let Some(former) = node.ram.replace(state) {
            self.ram_bytes -= former.len() as u64;
        }
        self.write_to_disk(segment.key);
        self.trim_ram();
        if index + 1 == prefix.len_segments() {
            self.make_resident(&segment.key, sequence, sequences);
        }
        Ok(())
    }

    /// A build ends without reaching the prefix's end; its sequence is free again.
    pub(crate) fn build_abandoned<M: Model>(
        &mut self,
        prefix: &Prefix,
        sequence: Sequence,
        sequences: &mut Sequences<M>,
    ) {
        for segment in prefix.segments() {
            if let Some(node) = self.nodes.get_mut(&segment.key) {
                node.building = false;
            }
        }
        sequences.release(sequence);
    }

    /// Frees cells and sequences by sending idle prefixes down a tier, least recently used first.
    /// `keep` is a sequence that must stay.
    pub(crate) fn make_room<M: Model>(
        &mut self,
        tokens: u32,
        count: usize,
        keep: Option<Sequence>,
        sequences: &mut Sequences<M>,
    ) -> bool {
        while sequences.free_tokens() < tokens || sequences.free_sequences() < count {
            if !self.evict_one(keep, sequences) {
                return false;
            }
        }
        true
    }

    /// Sends idle prefixes down while more cells are used than idle prefixes may hold beside `busy_tokens`.
    pub(crate) fn trim_idle<M: Model>(&mut self, busy_tokens: u32, sequences: &mut Sequences<M>) {
        let allowed = self.limits.idle_tokens_max.saturating_add(busy_tokens);
        let mut newest = None;
        for (key, node) in &self.nodes {
            if node.sequence.is_some() && newest.is_none_or(|(_, used)| node.last_used > used) {
                newest = Some((*key, node.last_used));
            }
        }
        let keep = newest.and_then(|(key, _)| self.nodes.get(&key).and_then(|node| node.sequence));
        while sequences.used_tokens() > allowed {
            if !self.evict_one(keep, sequences) {
                return;
            }
        }
    }

    /// Takes note of finished writes and sends states to disk that had to wait.
    pub(crate) fn maintain(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        disk.collect_written();
        let unsaved: Vec<PrefixKey> = self
            .nodes
            .iter()
            .filter(|(key, node)| node.pins > 0 && node.ram.is_some() && !disk.knows(key))
            .map(|(key, _)| *key)
            .collect();
        for key in unsaved {
            if !self.write_to_disk(key) {
                break;
            }
        }
        self.trim_ram();
    }

    /// Ends the disk tier's thread after its last job.
    pub(crate) fn close(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.close();
        }
    }

    /// Drops the KV and RAM copies of everything idle, so that tests and benchmarks can look at the tier below.
    pub(crate) fn demote_all<M: Model>(&mut self, to_disk: bool, sequences: &mut Sequences<M>) {
        while self.evict_one(None, sequences) {}
        if to_disk && let Some(disk) = &mut self.disk {
            for (key, node) in &mut self.nodes {
                if disk.has(key)
                    && let Some(state) = node.ram.take()
                {
                    self.ram_bytes -= state.len() as u64;
                }
            }
        }
    }

    /// Whether everything that can go to disk is there.
    pub(crate) fn is_settled(&mut self) -> bool {
        self.maintain();
        self.disk.as_ref().is_none_or(|disk| !disk.is_writing())
    }

    fn hold_chain(&mut self, chain: &[PrefixKey], pin: bool) {
        let mut parent = None;
        for key in chain {
            let node = self.nodes.entry(*key).or_default();
            node.parent = parent;
            node.holders += 1;
            node.pins += u32::from(pin);
            parent = Some(*key);
        }
    }

    fn let_go<M: Model>(&mut self, chain: &[PrefixKey], pin: bool, sequences: &mut Sequences<M>) {
        for key in chain {
            let Some(node) = self.nodes.get_mut(key) else {
                continue;
            };
            node.holders -= 1;
            node.pins -= u32::from(pin);
            if node.pins == 0
                && pin
                && let Some(disk) = &mut self.disk
            {
                disk.remove(key);
            }
            if node.holders > 0 {
                continue;
            }
            if let Some(node) = self.nodes.remove(key) {
                if let Some(sequence) = node.sequence {
                    sequences.release(sequence);
                }
                if let Some(state) = node.ram {
                    self.ram_bytes -= state.len() as u64;
                }
            }
        }
    }

    fn borrow(&mut self, tip: &PrefixKey) {
        if let Some(node) = self.nodes.get_mut(tip) {
            node.borrowers += 1;
            node.built = true;
        }
    }

    /// A sequence that holds the prefix ending at `key`: its own, or (cuttable) that of a longer prefix.
    fn sequence_through(&self, key: &PrefixKey) -> Option<Sequence> {
        if let Some(sequence) = self.nodes.get(key).and_then(|node| node.sequence) {
            return Some(sequence);
        }
        if !self.cuttable {
            return None;
        }
        self.nodes
            .iter()
            .filter(|(_, node)| node.sequence.is_some())
            .find(|(longer, _)| self.is_ancestor(key, longer))
            .and_then(|(_, node)| node.sequence)
    }

    fn is_ancestor(&self, key: &PrefixKey, of: &PrefixKey) -> bool {
        let mut current = self.nodes.get(of).and_then(|node| node.parent);
        while let Some(parent) = current {
            if parent == *key {
                return true;
            }
            current = self.nodes.get(&parent).and_then(|node| node.parent);
        }
        false
    }

    fn has_state(&self, key: &PrefixKey) -> bool {
        self.nodes.get(key).is_some_and(|node| node.ram.is_some())
            || self.disk.as_ref().is_some_and(|disk| disk.has(key))
    }

    fn load_segment<M: Model>(
        &mut self,
        key: &PrefixKey,
        positions: Range<u32>,
        sequence: Sequence,
        sequences: &mut Sequences<M>,
    ) -> Result<CacheTier, ReadFailure> {
        let whole = if self.cuttable {
            positions
        } else {
            0..positions.end
        };
        let tokens = u64::from(whole.end - whole.start);
        let in_ram = self.nodes.get(key).and_then(|node| node.ram.clone());
        let tier = match in_ram {
            Some(state) => {
                sequences
                    .load(sequence, whole, &state)
                    .map_err(|_| ReadFailure::Corrupt)?;
                CacheTier::Ram
            }
            None => {
                let disk = self.disk.as_ref().ok_or(ReadFailure::Absent)?;
                let state = disk.read(key)?;
                sequences
                    .load(sequence, whole, &state)
                    .map_err(|_| ReadFailure::Corrupt)?;
                if let Some(node) = self.nodes.get_mut(key) {
                    self.ram_bytes += state.len() as u64;
                    node.ram = Some(Arc::new(state));
                }
                self.trim_ram();
                CacheTier::Disk
            }
        };
        self.restored_tokens += tokens;
        Ok(tier)
    }

    fn forget_state(&mut self, key: &PrefixKey, failure: ReadFailure) {
        if let Some(disk) = &mut self.disk {
            disk.remove(key);
        }
        if let Some(node) = self.nodes.get_mut(key) {
            node.corrupt = failure == ReadFailure::Corrupt;
            if let Some(state) = node.ram.take() {
                self.ram_bytes -= state.len() as u64;
            }
        }
        tracing::warn!(
            ?key,
            ?failure,
            "a saved prefix state can't be used and will be computed again"
        );
    }

    fn miss_reason(&self, key: &PrefixKey) -> MissReason {
        match self.nodes.get(key) {
            Some(node) if node.corrupt => MissReason::StateCorrupt,
            Some(node) if node.built => MissReason::StateLost,
            _ => MissReason::FirstUse,
        }
    }

    fn make_resident<M: Model>(
        &mut self,
        tip: &PrefixKey,
        sequence: Sequence,
        sequences: &mut Sequences<M>,
    ) {
        if let Some(node) = self.nodes.get_mut(tip) {
            node.sequence = Some(sequence);
        }
        if !self.cuttable {
            return;
        }
        // A shorter prefix in the same line needs no sequence of its own: it can be cut from this one.
        let mut current = self.nodes.get(tip).and_then(|node| node.parent);
        while let Some(key) = current {
            let Some(node) = self.nodes.get_mut(&key) else {
                return;
            };
            if node.borrowers == 0
                && let Some(redundant) = node.sequence.take()
            {
                sequences.release(redundant);
            }
            current = node.parent;
        }
    }

    fn evict_one<M: Model>(
        &mut self,
        keep: Option<Sequence>,
        sequences: &mut Sequences<M>,
    ) -> bool {
        let victim = self
            .nodes
            .iter()
            .filter(|(_, node)| {
                node.borrowers == 0 && node.sequence.is_some() && node.sequence != keep
            })
            .min_by_key(|(_, node)| node.last_used)
            .map(|(key, _)| *key);
        let Some(node) = victim.and_then(|key| self.nodes.get_mut(&key)) else {
            return false;
        };
        if let Some(sequence) = node.sequence.take() {
            sequences.release(sequence);
        }
        true
    }

    fn write_to_disk(&mut self, key: PrefixKey) -> bool {
        let (Some(disk), Some(node)) = (&mut self.disk, self.nodes.get(&key)) else {
            return false;
        };
        match &node.ram {
            Some(state) if node.pins > 0 => disk.write(key, state),
            _ => true,
        }
    }

    /// Brings RAM within its budget: first what is on disk too, then (nothing else is possible) what is not.
    fn trim_ram(&mut self) {
        while self.ram_bytes > self.limits.ram_bytes_max {
            let disk = self.disk.as_ref();
            let victim = self
                .nodes
                .iter()
                .filter(|(_, node)| node.ram.is_some())
                .min_by_key(|(key, node)| {
                    let saved = disk.is_some_and(|disk| disk.has(key));
                    let waiting = disk.is_some_and(|disk| disk.knows(key));
                    (!saved, waiting, node.pins > 0, node.last_used)
                })
                .map(|(key, _)| *key);
            let Some(state) = victim
                .and_then(|key| self.nodes.get_mut(&key))
                .and_then(|node| node.ram.take())
            else {
                return;
            };
            self.ram_bytes -= state.len() as u64;
        }
    }
}

fn chain_of(prefix: &Prefix) -> Vec<PrefixKey> {
    prefix
        .segments()
        .iter()
        .map(|segment| segment.key)
        .collect()
}

trait MaxTier {
    /// The tier further down of the two: what the slowest part of a restore came from.
    fn max_tier(self, other: CacheTier) -> Option<CacheTier>;
}

impl MaxTier for Option<CacheTier> {
    fn max_tier(self, other: CacheTier) -> Option<CacheTier> {
        let depth = |tier: CacheTier| match tier {
            CacheTier::Kv => 0,
            CacheTier::Ram => 1,
            CacheTier::Disk => 2,
        };
        match self {
            Some(tier) if depth(tier) >= depth(other) => Some(tier),
            _ => Some(other),
        }
    }
}
