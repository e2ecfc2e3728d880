//! The one thread that owns the model.
//!
//! Each turn of the loop: take commands, let requests go that nobody waits for, admit what fits, compute one chunk of
//! one prompt, then one token of every running answer. A chunk never crosses a segment's border and is never mixed with
//! other sequences' tokens, so what it computes does not depend on who else is there.

mod answer;
mod build;

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use holdfast_protocol::chat::Sampling;
use holdfast_protocol::usage::{CacheStatus, CacheTier};
use holdfast_seal::StateKey;
use tokio::sync::{mpsc, oneshot};

use crate::Token;
use crate::cache::{Attached, CacheLimits, MissReason, PrefixCache};
use crate::constraint::Constraint;
use crate::disk::DiskTier;
use crate::engine::{GenerateEvent, Held, PrefixUse, Shared, Ticket};
use crate::error::EngineError;
use crate::model::{BatchToken, Model, Sequence, Vocabulary};
use crate::prefix::{Prefix, PrefixKey};
use crate::schedule::FairQueue;
use crate::sequences::Sequences;
use crate::tools::ToolOutput;

use self::answer::Slot;
use self::build::Build;

/// Sizes, all resolved.
pub(crate) struct WorkerOptions {
    pub(crate) slots: u32,
    pub(crate) sequences: u32,
    pub(crate) kv_tokens: u32,
    pub(crate) chunk_tokens: u32,
    pub(crate) ram_bytes_max: u64,
    pub(crate) idle_tokens_max: u32,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) state_fingerprint: PrefixKey,
    pub(crate) state_key: Option<StateKey>,
    pub(crate) disk_bytes_max: u64,
    pub(crate) cuttable: bool,
}

pub(crate) enum Command {
    Work(Work),
    Pin {
        pin: String,
        prefix: Arc<Prefix>,
    },
    Release {
        pin: String,
    },
    RetainPins {
        living: HashSet<String>,
    },
    Demote {
        to_disk: bool,
        done: oneshot::Sender<()>,
    },
    Stop,
}

pub(crate) enum Work {
    Hold(HoldWork),
    Generate(Box<GenerateWork>),
}

pub(crate) struct HoldWork {
    /// Held while it waits in line.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) project: String,
    pub(crate) pin: String,
    pub(crate) prefix: Arc<Prefix>,
    /// `None`: nobody waits for it.
    pub(crate) reply: Option<oneshot::Sender<Result<Held, EngineError>>>,
}

pub(crate) type EventSender = mpsc::UnboundedSender<Result<GenerateEvent, EngineError>>;

pub(crate) struct GenerateWork {
    /// Held while it waits in line.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) project: String,
    pub(crate) prefix: Option<Arc<Prefix>>,
    pub(crate) prefix_held_before: bool,
    /// Not empty; no piece is empty.
    pub(crate) suffix: Vec<Vec<Token>>,
    pub(crate) prompt_tokens: u64,
    pub(crate) sampling: Sampling,
    pub(crate) random_seed: u64,
    /// One per choice.
    pub(crate) constraints: Vec<Option<Box<dyn Constraint>>>,
    pub(crate) answer_tokens_max: u32,
    pub(crate) stop: Vec<String>,
    pub(crate) logprobs: Option<u8>,
    pub(crate) tools: ToolOutput,
    /// The prompt ends inside a thinking block.
    pub(crate) opens_thinking: bool,
    /// Unbounded as a type; bounded by `answer_tokens_max` events per choice.
    pub(crate) events: EventSender,
    pub(crate) received_at: Instant,
}

impl Work {
    fn project(&self) -> &str {
        match self {
            Work::Hold(work) => &work.project,
            Work::Generate(work) => &work.project,
        }
    }

    fn prefix(&self) -> Option<&Arc<Prefix>> {
        match self {
            Work::Hold(work) => Some(&work.prefix),
            Work::Generate(work) => work.prefix.as_ref(),
        }
    }

    fn leave_line(&mut self) {
        match self {
            Work::Hold(work) => work.ticket = None,
            Work::Generate(work) => work.ticket = None,
        }
    }

    /// Whether nobody waits for it.
    fn is_background(&self) -> bool {
        matches!(self, Work::Hold(hold) if hold.reply.is_none())
    }

    fn is_cancelled(&self) -> bool {
        match self {
            Work::Hold(work) => work.reply.as_ref().is_some_and(oneshot::Sender::is_closed),
            Work::Generate(work) => work.events.is_closed(),
        }
    }

    fn fail(self, error: EngineError) {
        // A receiver that has gone does not need the answer.
        match self {
            Work::Hold(work) => {
                if let Some(reply) = work.reply {
                    let _ = reply.send(Err(error));
                }
            }
            Work::Generate(work) => {
                let _ = work.events.send(Err(error));
            }
        }
    }
}

/// Admitted work whose prefix is not resident yet.
struct Waiting {
    work: Work,
    /// What this work itself had to compute, if it began the build.
    found: Option<Found>,
}

/// How much of a prefix was there when the work met it.
#[derive(Clone, Copy)]
struct Found {
    computed_tokens: u64,
    reason: MissReason,
    tier: Option<CacheTier>,
}

struct Worker<'shared, M> {
    sequences: Sequences<M>,
    vocabulary: Arc<dyn Vocabulary>,
    cache: PrefixCache,
    queue: FairQueue<Work>,
    /// Prefixes to compute when nothing else is to be done; at most one per pin.
    background: VecDeque<Work>,
    waiting: Vec<Waiting>,
    builds: VecDeque<Build>,
    slots: VecDeque<Slot>,
    options: WorkerOptions,
    shared: &'shared Shared,
    prefill_tokens: u64,
    decode_tokens: u64,
    cached_tokens: u64,
    rebuilds: u64,
}

/// How often an otherwise idle worker looks whether its disk writes are done.
const MAINTENANCE_INTERVAL: Duration = Duration::from_millis(5);

/// Runs until told to stop or every handle is gone. `ready` is answered once commands are taken.
pub(crate) fn run<M: Model>(
    model: M,
    vocabulary: Arc<dyn Vocabulary>,
    options: WorkerOptions,
    mut commands: mpsc::UnboundedReceiver<Command>,
    shared: &Shared,
    ready: &std::sync::mpsc::Sender<Result<(), EngineError>>,
) {
    let disk = match &options.state_dir {
        None => None,
        Some(folder) => {
            match DiskTier::open(
                folder,
                &options.state_fingerprint,
                options.disk_bytes_max,
                options.state_key.clone(),
            ) {
                Ok(disk) => Some(disk),
                Err(error) => {
                    let failure =
                        EngineError::Failed(format!("the state folder can't be used: {error}"));
                    drop(ready.send(Err(failure)));
                    return;
                }
            }
        }
    };
    let limits = CacheLimits {
        ram_bytes_max: options.ram_bytes_max,
        idle_tokens_max: options.idle_tokens_max,
    };
    let mut worker = Worker {
        sequences: Sequences::new(model, options.sequences, options.kv_tokens),
        vocabulary,
        cache: PrefixCache::new(disk, limits, options.cuttable),
        queue: FairQueue::new(),
        background: VecDeque::new(),
        waiting: Vec::new(),
        builds: VecDeque::new(),
        slots: VecDeque::new(),
        options,
        shared,
        prefill_tokens: 0,
        decode_tokens: 0,
        cached_tokens: 0,
        rebuilds: 0,
    };
    worker.publish();
    drop(ready.send(Ok(())));
    loop {
        let command = if worker.is_idle() {
            // Nothing to compute: sleep until a command comes, or look after the disk writes still under way.
            if worker.cache.is_settled() {
                commands
                    .blocking_recv()
                    .ok_or(mpsc::error::TryRecvError::Disconnected)
            } else {
                std::thread::park_timeout(MAINTENANCE_INTERVAL);
                commands.try_recv()
            }
        } else {
            commands.try_recv()
        };
        match command {
            Ok(Command::Stop) | Err(mpsc::error::TryRecvError::Disconnected) => break,
            Ok(command) => {
                worker.obey(command);
                // Take all that has come before computing, so that one turn can serve many.
                let mut stop = false;
                while let Ok(command) = commands.try_recv() {
                    if matches!(command, Command::Stop) {
                        stop = true;
                        break;
                    }
                    worker.obey(command);
                }
                if stop {
                    break;
                }
            }
            Err(mpsc::error::TryRecvError::Empty) => {}
        }
        worker.turn();
    }
    commands.close();
    while let Ok(command) = commands.try_recv() {
        if let Command::Work(work) = command {
            work.fail(EngineError::Stopped);
        }
    }
    worker.end();
}

impl<M: Model> Worker<'_, M> {
    fn is_idle(&self) -> bool {
        self.queue.len() == 0
            && self.background.is_empty()
            && self.waiting.is_empty()
            && self.builds.is_empty()
            && self.slots.is_empty()
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Work(work) if work.is_background() => self.take_background(work),
            Command::Work(work) => {
                let project = work.project().to_owned();
                self.queue.push(&project, work);
            }
            Command::Pin { pin, prefix } => self.cache.pin(&pin, &prefix, &mut self.sequences),
            Command::Release { pin } => self.release(&pin),
            Command::RetainPins { living } => self.cache.retain_pins(&living, &mut self.sequences),
            Command::Demote { to_disk, done } => {
                while to_disk && !self.cache.is_settled() {
                    std::thread::park_timeout(MAINTENANCE_INTERVAL);
                }
                self.cache.demote_all(to_disk, &mut self.sequences);
                self.publish();
                // Whoever asked may have gone.
                let _ = done.send(());
            }
            Command::Stop => {}
        }
    }

    /// Notes what is to be computed ahead; its pin moves at once, and what was noted for the same pin is out of date.
    fn take_background(&mut self, work: Work) {
        if let Work::Hold(hold) = &work {
            self.forget_holds(&hold.pin);
            self.cache.pin(&hold.pin, &hold.prefix, &mut self.sequences);
        }
        self.background.push_back(work);
    }

    /// Takes a pin away, and with it work that would put it back.
    fn release(&mut self, pin: &str) {
        self.forget_holds(pin);
        self.cache.unpin(pin, &mut self.sequences);
    }

    fn forget_holds(&mut self, pin: &str) {
        let concerns = |work: &Work| matches!(work, Work::Hold(hold) if hold.pin == pin);
        self.queue.retain(|work| !concerns(work));
        self.background.retain(|work| !concerns(work));
        for waiting in std::mem::take(&mut self.waiting) {
            if concerns(&waiting.work) {
                self.unhold(waiting.work.prefix().cloned());
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    fn turn(&mut self) {
        self.drop_cancelled();
        self.resume_waiting();
        self.admit();
        let began = Instant::now();
        let computed = self.prefill_chunk();
        let prefill_time = began.elapsed();
        // After a chunk, running answers get as much time as it took, so that they keep moving at half speed.
        let began = Instant::now();
        loop {
            self.begin_choices();
            if !self.decode_step() || !computed || began.elapsed() >= prefill_time {
                break;
            }
        }
        self.finish_slots();
        self.cache.maintain();
        self.publish();
    }

    fn drop_cancelled(&mut self) {
        self.queue.retain(|work| !work.is_cancelled());

        let mut kept = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.work.is_cancelled() {
                self.unhold(waiting.work.prefix().cloned());
            } else {
                kept.push(waiting);
            }
        }
        self.waiting = kept;
        self.abandon_unwanted_builds();

        for index in (0..self.slots.len()).rev() {
            if self.slots[index].work.events.is_closed()
                && let Some(slot) = self.slots.remove(index)
            {
                self.release_slot(slot);
            }
        }
    }

    fn unhold(&mut self, prefix: Option<Arc<Prefix>>) {
        if let Some(prefix) = prefix {
            self.cache.unhold(&prefix, &mut self.sequences);
        }
    }

    /// Admits waiting requests in fair order until one does not fit; then, if nothing else is to be done, one prefix to
    /// be computed ahead.
    fn admit(&mut self) {
        while let Some((project, work)) = self.queue.pop() {
            if matches!(work, Work::Generate(_)) && !self.has_slot() {
                self.queue.push_front(&project, work);
                return;
            }
            self.postpone_background(&work);
            if let Work::Hold(hold) = &work {
                self.cache.pin(&hold.pin, &hold.prefix, &mut self.sequences);
            }
            if let Err(work) = self.admit_one(work) {
                self.queue.push_front(&project, work);
                return;
            }
        }
        let is_free = self.slots.is_empty() && self.builds.is_empty() && self.waiting.is_empty();
        if is_free
            && let Some(work) = self.background.pop_front()
            && let Err(work) = self.admit_one(work)
        {
            self.background.push_front(work);
        }
    }

    /// Gives the work back when there is no room for it now.
    fn admit_one(&mut self, work: Work) -> Result<(), Work> {
        if let Some(prefix) = work.prefix() {
            self.cache.hold(prefix);
        }
        match self.place(Waiting { work, found: None }) {
            Placed::Done => Ok(()),
            Placed::Later(mut waiting) => {
                waiting.work.leave_line();
                self.waiting.push(waiting);
                Ok(())
            }
            Placed::NoRoom(waiting) => {
                self.unhold(waiting.work.prefix().cloned());
                if !self.slots.is_empty() || !self.builds.is_empty() {
                    return Err(waiting.work);
                }
                // Nothing runs that could make room, so it would wait for ever.
                let needed = waiting.work.prefix().map_or(0, |prefix| prefix.tokens());
                waiting.work.fail(EngineError::WindowExceeded {
                    needed,
                    window: u64::from(self.sequences.tokens_max()),
                });
                Ok(())
            }
        }
    }

    fn has_slot(&self) -> bool {
        let answering: usize = self
            .slots
            .iter()
            .map(|slot| slot.running.len().max(1))
            .sum();
        let expected = self
            .waiting
            .iter()
            .filter(|waiting| matches!(waiting.work, Work::Generate(_)))
            .count();
        answering + expected < self.options.slots as usize
    }

    /// Looks again at admitted work whose prefix was not there.
    fn resume_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            match self.place(waiting) {
                Placed::Done => {}
                Placed::Later(waiting) | Placed::NoRoom(waiting) => self.waiting.push(waiting),
            }
        }
    }

    /// Moves admitted work as far as it can go now. Its prefix is held.
    fn place(&mut self, mut waiting: Waiting) -> Placed {
        let Some(prefix) = waiting
            .work
            .prefix()
            .filter(|prefix| prefix.len_segments() > 0)
            .cloned()
        else {
            return self.begin(waiting, None);
        };
        let alone = self.slots.is_empty() && self.builds.is_empty();
        match self.cache.attach(&prefix, alone, &mut self.sequences) {
            Attached::Ready { sequence, tier } => self.begin(waiting, Some((sequence, tier))),
            Attached::Compute {
                sequence,
                next,
                reason,
                tier,
            } => {
                let segments = prefix.segments();
                waiting.found.get_or_insert(Found {
                    computed_tokens: prefix.tokens() - u64::from(segments[next].start),
                    reason,
                    tier,
                });
                self.sequences.begin_block(sequence);
                self.cache.hold(&prefix);
                self.builds.push_back(Build {
                    prefix,
                    sequence,
                    next,
                    offset: 0,
                });
                Placed::Later(waiting)
            }
            Attached::Wait => Placed::Later(waiting),
            Attached::NoRoom => Placed::NoRoom(waiting),
        }
    }

    /// The prefix is resident (or there is none): answers a hold, starts a request.
    fn begin(&mut self, waiting: Waiting, attached: Option<(Sequence, CacheTier)>) -> Placed {
        match waiting.work {
            Work::Hold(hold) => {
                self.cache.detach(&hold.prefix);
                self.unhold(Some(Arc::clone(&hold.prefix)));
                if let Some(reply) = hold.reply {
                    let held = Held {
                        prefix_tokens: hold.prefix.tokens(),
                        computed_tokens: waiting.found.map_or(0, |found| found.computed_tokens),
                    };
                    // Unheard: the pin is released by whoever cancelled.
                    let _ = reply.send(Ok(held));
                }
                Placed::Done
            }
            Work::Generate(work) => self.begin_slot(work, waiting.found, attached),
        }
    }

    fn begin_slot(
        &mut self,
        mut work: Box<GenerateWork>,
        found: Option<Found>,
        attached: Option<(Sequence, CacheTier)>,
    ) -> Placed {
        let suffix_tokens: u32 = work.suffix.iter().map(|piece| piece.len() as u32).sum();
        let needed = suffix_tokens
            .saturating_add(work.answer_tokens_max)
            .saturating_add(self.promised_tokens());
        let room = self.cache.make_room(needed, 1, None, &mut self.sequences);
        let prompt = if room { self.sequences.take() } else { None };
        let Some(prompt) = prompt else {
            if let Some(prefix) = &work.prefix {
                self.cache.detach(prefix);
            }
            let work = Work::Generate(work);
            return Placed::NoRoom(Waiting { work, found });
        };
        work.ticket = None;
        let mut position = 0;
        let mut prefix_use = None;
        if let (Some((sequence, tier)), Some(prefix)) = (attached, &work.prefix) {
            position = u32::try_from(prefix.tokens()).unwrap_or(u32::MAX);
            self.sequences.share(sequence, prompt, position);
            let usage = describe(prefix, found, tier, work.prefix_held_before);
            self.cached_tokens += usage.cached_tokens;
            self.rebuilds += u64::from(usage.status == CacheStatus::Rebuilt);
            prefix_use = Some(usage);
        }
        self.sequences.begin_block(prompt);
        self.slots.push_back(Slot {
            work,
            prefix_use,
            prompt: Some(prompt),
            piece: 0,
            offset: 0,
            position,
            logits: Vec::new(),
            choices_begun: 0,
            running: Vec::new(),
            output_tokens: 0,
            started: false,
        });
        let busy = self.busy_tokens();
        self.cache.trim_idle(busy, &mut self.sequences);
        Placed::Done
    }

    /// Cells that running requests and builds may still need.
    fn promised_tokens(&self) -> u32 {
        let slots: u32 = self
            .slots
            .iter()
            .map(|slot| {
                let prompt_left: usize = slot
                    .work
                    .suffix
                    .iter()
                    .skip(slot.piece)
                    .map(Vec::len)
                    .sum::<usize>()
                    .saturating_sub(slot.offset);
                let first = if slot.choices_begun == 0 {
                    slot.work.answer_tokens_max
                } else {
                    0
                };
                let answers: u32 = slot
                    .running
                    .iter()
                    .map(|choice| slot.work.answer_tokens_max - choice.generated)
                    .sum();
                prompt_left as u32 + first + answers
            })
            .fold(0, u32::saturating_add);
        let builds: u32 = self
            .builds
            .iter()
            .map(|build| {
                let done = build.prefix.segments()[build.next].start + build.offset as u32;
                (build.prefix.tokens() as u32).saturating_sub(done)
            })
            .fold(0, u32::saturating_add);
        slots.saturating_add(builds)
    }

    /// Cells that running requests use, their prefixes included; prefixes that several share count several times.
    fn busy_tokens(&self) -> u32 {
        let slots = self.slots.iter().map(|slot| slot.work.prompt_tokens as u32);
        let builds = self.builds.iter().map(|build| build.prefix.tokens() as u32);
        slots.chain(builds).fold(0, u32::saturating_add)
    }

    /// Computes one chunk of a request's prompt and one of a prefix, so that neither waits for the whole of the other.
    fn prefill_chunk(&mut self) -> bool {
        let answering = self.slot_turn();
        let building = self.build_turn();
        answering || building
    }

    fn slot_turn(&mut self) -> bool {
        let unfinished = |slot: &Slot| slot.piece < slot.work.suffix.len();
        let Some(index) = self.slots.iter().position(unfinished) else {
            return false;
        };
        if let Some(mut slot) = self.slots.remove(index) {
            match self.slot_chunk(&mut slot) {
                Ok(()) => self.slots.push_back(slot),
                Err(error) => self.slot_failed(slot, error),
            }
        }
        true
    }

    fn compute(
        &mut self,
        tokens: &[Token],
        position: u32,
        sequence: Sequence,
        logits_of_last: bool,
    ) -> Result<(), EngineError> {
        let batch: Vec<BatchToken> = tokens
            .iter()
            .enumerate()
            .map(|(index, token)| BatchToken {
                token: *token,
                position: position + index as u32,
                sequence,
                logits: logits_of_last && index + 1 == tokens.len(),
            })
            .collect();
        self.prefill_tokens += tokens.len() as u64;
        self.sequences.decode(&batch)
    }

    fn publish(&self) {
        let mut status = match self.shared.status.lock() {
            Ok(status) => status,
            Err(poisoned) => poisoned.into_inner(),
        };
        status.queued = self.shared.waiting.load(Ordering::Relaxed);
        status.running = self
            .slots
            .iter()
            .map(|slot| slot.running.len().max(1) as u32)
            .sum();
        status.kv_tokens_used = self.sequences.used_tokens();
        status.kv_tokens_max = self.sequences.tokens_max();
        status.pinned = self.cache.pinned() as u64;
        status.ram_bytes = self.cache.ram_bytes();
        status.disk_bytes = self.cache.disk_bytes();
        status.prefill_tokens_total = self.prefill_tokens;
        status.decode_tokens_total = self.decode_tokens;
        status.restored_tokens_total = self.cache.restored_tokens;
        status.cached_tokens_total = self.cached_tokens;
        status.rebuilds_total = self.rebuilds;
    }

    fn end(mut self) {
        self.background.clear();
        for work in self.queue.drain() {
            work.fail(EngineError::Stopped);
        }
        for waiting in std::mem::take(&mut self.waiting) {
            self.unhold(waiting.work.prefix().cloned());
            waiting.work.fail(EngineError::Stopped);
        }
        for build in std::mem::take(&mut self.builds) {
            self.end_build(build);
        }
        for slot in std::mem::take(&mut self.slots) {
            // A receiver that has gone does not need the error.
            let _ = slot.work.events.send(Err(EngineError::Stopped));
            self.release_slot(slot);
        }
        while !self.cache.is_settled() {
            std::thread::park_timeout(MAINTENANCE_INTERVAL);
        }
        self.cache.close();
        self.publish();
    }
}

enum Placed {
    Done,
    Later(Waiting),
    NoRoom(Waiting),
}

fn describe(
    prefix: &Prefix,
    found: Option<Found>,
    tier: CacheTier,
    held_before: bool,
) -> PrefixUse {
    let tokens = prefix.tokens();
    match found {
        None => PrefixUse {
            tokens,
            cached_tokens: tokens,
            status: CacheStatus::Hit,
            tier: Some(tier),
            reason: None,
        },
        Some(found) => {
            let cached_tokens = tokens - found.computed_tokens;
            // With nothing left to know it by, only the caller knows that it was there before.
            let reason = match found.reason {
                MissReason::FirstUse if held_before && cached_tokens == 0 => MissReason::StateLost,
                reason => reason,
            };
            PrefixUse {
                tokens,
                cached_tokens,
                status: match reason {
                    MissReason::FirstUse => CacheStatus::Miss,
                    MissReason::StateLost | MissReason::StateCorrupt => CacheStatus::Rebuilt,
                },
                tier: found.tier,
                reason: Some(reason.as_str()),
            }
        }
    }
}
