//! The handle callers hold: it checks and tokenises on the caller's thread and talks to the worker over a channel.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_protocol::chat::{Delta, FinishReason, Sampling};
use holdfast_protocol::usage::{CacheStatus, CacheTier};
use holdfast_seal::StateKey;
use tokio::sync::{mpsc, oneshot};

use crate::Token;
use crate::constraint::{Constraint, ConstraintFactory, Grammar};
use crate::error::EngineError;
#[cfg(feature = "llama")]
use crate::llama::{LlamaWeights, SEQUENCES_MAX, WindowOptions};
use crate::model::{ModelInfo, Vocabulary};
use crate::prefix::{Prefix, PrefixKey};
use crate::template::ChatTemplate;
use crate::tools::ToolOutput;
use crate::worker::{Command, GenerateWork, HoldWork, Work, WorkerOptions};

/// The template of a model file that carries none.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
     '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// How an engine is set up. `None` means a default taken from the model or the machine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The GGUF file.
    pub model_path: PathBuf,
    /// Most tokens of prompt and answer together. Default: what the model was trained for.
    pub window_tokens: Option<u32>,
    /// Cells of the KV cache, tokens. Default: three windows, within a quarter of the machine's memory.
    pub kv_tokens: Option<u32>,
    /// CPU threads. Default: the machine's cores.
    pub threads: Option<u32>,
    /// Answers decoded at once.
    pub slots: u32,
    /// Requests that may wait; the next one is refused.
    pub queue_max: u32,
    /// Saved states in memory, bytes. Default: an eighth of the machine's memory.
    pub ram_bytes_max: Option<u64>,
    /// Folder of the disk tier. `None`: no disk tier.
    pub state_dir: Option<PathBuf>,
    /// Saved states on disk, bytes.
    pub disk_bytes_max: u64,
    /// What seals them. `None`: they are readable by whoever reads the disk.
    pub state_key: Option<StateKey>,
    /// Cells that prefixes nobody is using may keep in the KV cache, tokens: they slow every other request, and coming
    /// back from RAM takes some microseconds per token.
    pub idle_tokens_max: u32,
    /// Whether attention runs as one fused kernel. Off measured faster on CPUs.
    pub flash_attention: bool,
    /// Tokens computed between two looks at the running answers.
    pub chunk_tokens: u32,
}

impl EngineOptions {
    /// The defaults for a model file.
    pub fn new(model_path: PathBuf) -> Self {
        EngineOptions {
            model_path,
            window_tokens: None,
            kv_tokens: None,
            threads: None,
            slots: 16,
            queue_max: 256,
            ram_bytes_max: None,
            state_dir: None,
            disk_bytes_max: 10 << 30,
            state_key: None,
            idle_tokens_max: 8192,
            flash_attention: false,
            chunk_tokens: 64,
        }
    }
}

/// What [`Engine::hold`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The prefix's length.
    pub prefix_tokens: u64,
    /// Of these, tokens computed now. 0: an identical prefix was resident already.
    pub computed_tokens: u64,
}

/// One request for an answer.
#[derive(Debug)]
pub struct GenerateRequest {
    /// For fairness.
    pub project: String,
    /// What the answer continues from.
    pub prefix: Option<Arc<Prefix>>,
    /// Whether the caller knows that the prefix was held before; if nothing of it is left, it is then a rebuild.
    pub prefix_held_before: bool,
    /// Prompt text after the prefix. Each piece is tokenised and computed by itself.
    pub suffix: Vec<String>,
    /// Token choice.
    pub sampling: Sampling,
    /// Answers wanted, at least 1.
    pub choices: u32,
    /// Most tokens of an answer. `None`: until the window is full.
    pub max_tokens: Option<u32>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// What the answer must match.
    pub constraint: Option<Grammar>,
    /// `Some(k)`: log probabilities, with `k` alternatives.
    pub logprobs: Option<u8>,
    /// How tool calls are found in the text.
    pub tools: ToolOutput,
}

/// How a request's prefix was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixUse {
    /// The prefix's length.
    pub tokens: u64,
    /// Of these, tokens that this request did not have to compute.
    pub cached_tokens: u64,
    /// Hit, rebuilt or miss.
    pub status: CacheStatus,
    /// Where the slowest part of it was found.
    pub tier: Option<CacheTier>,
    /// Why it was not a hit: `first_use`, `state_lost` or `state_corrupt`.
    pub reason: Option<&'static str>,
}

/// A step of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerateEvent {
    /// Once and first, when the first token is known.
    Started {
        /// Prefix and suffix.
        prompt_tokens: u64,
        /// `None` when the request named no prefix.
        prefix: Option<PrefixUse>,
        /// Since the request reached the engine.
        first_token_ms: u64,
    },
    /// More of a choice.
    Delta {
        /// 0-based.
        choice: u32,
        /// What is new.
        delta: Delta,
    },
    /// A choice ended.
    Finish {
        /// 0-based.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// Last.
    Done {
        /// Prefix and suffix.
        prompt_tokens: u64,
        /// Of all choices.
        output_tokens: u64,
    },
}

/// A running answer. Dropping it cancels the request at the engine's next step.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::UnboundedReceiver<Result<GenerateEvent, EngineError>>,
}

impl Generation {
    /// The next event; `None` after `Done` or an error.
    pub async fn next(&mut self) -> Option<Result<GenerateEvent, EngineError>> {
        self.events.recv().await
    }
}

/// Counters (since start) and gauges of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStatus {
    /// Requests waiting.
    pub queued: u32,
    /// Answers being computed.
    pub running: u32,
    /// Cells in use.
    pub kv_tokens_used: u32,
    /// Cells in all.
    pub kv_tokens_max: u32,
    /// Pins in force.
    pub pinned: u64,
    /// Saved states in memory, bytes.
    pub ram_bytes: u64,
    /// Saved states on disk, bytes.
    pub disk_bytes: u64,
    /// Prompt tokens computed.
    pub prefill_tokens_total: u64,
    /// Answer tokens computed.
    pub decode_tokens_total: u64,
    /// Prefix tokens read back from RAM or disk.
    pub restored_tokens_total: u64,
    /// Prefix tokens that requests did not have to compute.
    pub cached_tokens_total: u64,
    /// Prefixes computed again because their state was lost or damaged.
    pub rebuilds_total: u64,
    /// Requests refused because the queue was full.
    pub queue_full_total: u64,
}

/// What the handle shares with the worker.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) status: Mutex<EngineStatus>,
    /// Requests sent and not yet admitted.
    pub(crate) waiting: AtomicU32,
    /// Likewise work in the background, which takes no request's place.
    pub(crate) waiting_in_background: AtomicU32,
    pub(crate) queue_full: AtomicU64,
}

/// A place in the waiting line, given back when the work is admitted or forgotten.
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    background: bool,
}

impl Ticket {
    fn counter(&self) -> &AtomicU32 {
        if self.background {
            &self.shared.waiting_in_background
        } else {
            &self.shared.waiting
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.counter().fetch_sub(1, Ordering::AcqRel);
    }
}

struct Inner {
    info: ModelInfo,
    vocabulary: Arc<dyn Vocabulary>,
    template: ChatTemplate,
    constraints: ConstraintFactory,
    begin_token: Option<Token>,
    state_fingerprint: String,
    queue_max: u32,
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
    seeds: AtomicU64,
    worker: Mutex<Option<JoinHandle<()>>>,
}

/// A running engine. Clones are handles on the same one; the thread ends when [`Engine::stop`] is called or the last
/// handle is dropped.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl Engine {
    /// Whether both are handles on the same running engine.
    pub fn is_same(&self, other: &Engine) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Loads the model and starts the engine's thread. Blocks while the file is read.
    ///
    /// # Errors
    /// `Model` when the file can't be used, `Template` when its chat template can't be parsed, `Failed` when the KV
    /// cache can't be allocated.
    #[cfg(feature = "llama")]
    pub fn start(options: EngineOptions) -> Result<Engine, EngineError> {
        let weights = Arc::new(LlamaWeights::load(&options.model_path)?);
        let info = weights.info(options.window_tokens);
        let (template, begin_text, end_text) = weights.chat_template();
        let template = template.unwrap_or_else(|| CHATML.to_owned());
        let template = ChatTemplate::new(&template, &begin_text, &end_text)?;
        let memory = memory_bytes();
        let sequences = (options.slots * 2 + 64).min(SEQUENCES_MAX - 1);
        let window = WindowOptions {
            kv_tokens: kv_tokens(&options, &info, weights.kv_bytes_per_token(), memory),
            // llama.cpp plans for one output per sequence and aborts when a batch can't hold so many.
            batch_tokens_max: options.chunk_tokens.max(sequences + 1),
            sequences_max: sequences + 1,
            threads: options.threads.unwrap_or_else(core_count),
            flash_attention: options.flash_attention,
        };
        let fingerprint = fingerprint(
            &options,
            format!(
                "{} llama-cpp-2 0.1.160 f16 flash={}",
                info.fingerprint, options.flash_attention
            ),
        );
        let worker = worker_options(
            &options,
            &info,
            sequences,
            window.kv_tokens,
            memory,
            &fingerprint,
        );
        let (commands, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let (ready, started) = std::sync::mpsc::channel();
        let thread_weights = Arc::clone(&weights);
        let thread_shared = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("holdfast-engine".into())
            .spawn(move || match thread_weights.window(window) {
                Ok(model) => {
                    let vocabulary: Arc<dyn Vocabulary> = thread_weights.clone();
                    crate::worker::run(model, vocabulary, worker, receiver, &thread_shared, &ready);
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(|error| EngineError::Failed(error.to_string()))?;
        started.recv().map_err(|_| EngineError::Stopped)??;
        Ok(Self::assemble(
            info,
            weights.clone(),
            template,
            weights.constraints(),
            weights.begin_token(),
            fingerprint,
            options.queue_max,
            commands,
            shared,
            thread,
        ))
    }

    /// Refuses: this build carries no llama.cpp.
    ///
    /// # Errors
    /// Always `Model`.
    #[cfg(not(feature = "llama"))]
    pub fn start(_options: EngineOptions) -> Result<Engine, EngineError> {
        Err(EngineError::Model(
            "this build carries no llama.cpp (feature `llama`)".into(),
        ))
    }

    /// An engine on a deterministic toy model that needs no file, for tests: bytes are tokens, answers are sixteen
    /// letters that depend on everything before them, and grammars are refused.
    ///
    /// # Errors
    /// As `start`.
    #[doc(hidden)]
    pub fn start_tiny(options: EngineOptions) -> Result<Engine, EngineError> {
        let info = crate::tiny::info(options.window_tokens);
        let template = ChatTemplate::new(CHATML, "", "<|im_end|>")?;
        let sequences = options.slots * 2 + 64;
        let kv_tokens = options.kv_tokens.unwrap_or(info.window_tokens * 8);
        let fingerprint = fingerprint(&options, "tiny".to_owned());
        let worker = worker_options(&options, &info, sequences, kv_tokens, 1 << 30, &fingerprint);
        let (commands, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let (ready, started) = std::sync::mpsc::channel();
        let thread_shared = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("holdfast-tiny".into())
            .spawn(move || {
                let model = crate::tiny::TinyModel::new();
                let vocabulary = Arc::new(crate::tiny::TinyVocabulary);
                crate::worker::run(model, vocabulary, worker, receiver, &thread_shared, &ready);
            })
            .map_err(|error| EngineError::Failed(error.to_string()))?;
        started.recv().map_err(|_| EngineError::Stopped)??;
        Ok(Self::assemble(
            info,
            Arc::new(crate::tiny::TinyVocabulary),
            template,
            ConstraintFactory::none(),
            None,
            fingerprint,
            options.queue_max,
            commands,
            shared,
            thread,
        ))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one private constructor for two kinds of model"
    )]
    fn assemble(
        info: ModelInfo,
        vocabulary: Arc<dyn Vocabulary>,
        template: ChatTemplate,
        constraints: ConstraintFactory,
        begin_token: Option<Token>,
        state_fingerprint: String,
        queue_max: u32,
        commands: mpsc::UnboundedSender<Command>,
        shared: Arc<Shared>,
        thread: JoinHandle<()>,
    ) -> Engine {
        Engine {
            inner: Arc::new(Inner {
                info,
                vocabulary,
                template,
                constraints,
                begin_token,
                state_fingerprint,
                queue_max,
                commands,
                shared,
                seeds: AtomicU64::new(seed_from_time()),
                worker: Mutex::new(Some(thread)),
            }),
        }
    }

    /// Facts about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// The model's chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.inner.template
    }

    /// Checks grammars and schemas before they are used.
    pub fn constraints(&self) -> &ConstraintFactory {
        &self.inner.constraints
    }

    /// Tokens of a text.
    pub fn tokenize(&self, text: &str) -> Vec<Token> {
        self.inner.vocabulary.tokenize(text)
    }

    /// A prefix of these segments. Prefixes of different namespaces never share state.
    pub fn prefix(&self, namespace: &str, segments: &[String]) -> Arc<Prefix> {
        let mut prefix = Prefix::new(PrefixKey::root(namespace, &self.inner.state_fingerprint));
        self.push_segments(&mut prefix, segments);
        Arc::new(prefix)
    }

    /// The same prefix with more segments.
    pub fn extend(&self, prefix: &Arc<Prefix>, segments: &[String]) -> Arc<Prefix> {
        let mut longer = Prefix::clone(prefix);
        self.push_segments(&mut longer, segments);
        Arc::new(longer)
    }

    fn push_segments(&self, prefix: &mut Prefix, segments: &[String]) {
        for text in segments {
            let mut tokens = self.tokenize(text);
            if prefix.len_segments() == 0 {
                self.begin(&mut tokens);
            }
            prefix.push(tokens);
        }
    }

    /// Puts the begin token in front where the model wants one and the template did not write it.
    fn begin(&self, tokens: &mut Vec<Token>) {
        if let Some(begin) = self.inner.begin_token
            && !tokens.is_empty()
            && tokens.first() != Some(&begin)
        {
            tokens.insert(0, begin);
        }
    }

    /// Makes a prefix resident and pins it under `pin` until [`Engine::release`]. A pin of the same name moves.
    /// Identical content in one namespace is computed once, however many ask at the same time.
    ///
    /// # Errors
    /// `WindowExceeded`, `QueueFull`, `Stopped`, `Failed`. Dropping the future cancels; the pin must be released then.
    pub async fn hold(
        &self,
        project: &str,
        pin: &str,
        prefix: Arc<Prefix>,
    ) -> Result<Held, EngineError> {
        self.check_window(prefix.tokens())?;
        let ticket = self.ticket(false)?;
        let (reply, answer) = oneshot::channel();
        self.send_work(Work::Hold(HoldWork {
            ticket: Some(ticket),
            project: project.to_owned(),
            pin: pin.to_owned(),
            prefix,
            reply: Some(reply),
        }))?;
        answer.await.map_err(|_| EngineError::Stopped)?
    }

    /// Like [`Engine::hold`] in the background, for a session's next state. When the queue is full nothing is computed
    /// now, and the next request computes what is missing.
    pub fn hold_later(&self, project: &str, pin: &str, prefix: Arc<Prefix>) {
        if self.check_window(prefix.tokens()).is_err() {
            return;
        }
        let Ok(ticket) = self.ticket(true) else {
            self.pin(pin, prefix);
            return;
        };
        // Fails only when the engine has ended, and then there is nothing to hold.
        let _ = self.send_work(Work::Hold(HoldWork {
            ticket: Some(ticket),
            project: project.to_owned(),
            pin: pin.to_owned(),
            prefix,
            reply: None,
        }));
    }

    /// Pins without computing.
    pub fn pin(&self, pin: &str, prefix: Arc<Prefix>) {
        self.control(Command::Pin {
            pin: pin.to_owned(),
            prefix,
        });
    }

    /// Takes a pin away; its state goes from all tiers unless another pin or a running request shares it.
    pub fn release(&self, pin: &str) {
        self.control(Command::Release {
            pin: pin.to_owned(),
        });
    }

    /// At start: keeps only the pins (found on disk) that are in `living`, and removes all other state files.
    pub fn retain_pins(&self, living: HashSet<String>) {
        self.control(Command::RetainPins { living });
    }

    /// Starts an answer.
    ///
    /// # Errors
    /// `QueueFull` at once when too many wait, `WindowExceeded`, `Grammar`, `Stopped`.
    pub async fn generate(&self, request: GenerateRequest) -> Result<Generation, EngineError> {
        let mut suffix: Vec<Vec<Token>> = request
            .suffix
            .iter()
            .map(|text| self.tokenize(text))
            .filter(|tokens| !tokens.is_empty())
            .collect();
        let prefix = request.prefix.filter(|prefix| prefix.len_segments() > 0);
        if prefix.is_none()
            && let Some(first) = suffix.first_mut()
        {
            self.begin(first);
        }
        let suffix_tokens: u64 = suffix.iter().map(|tokens| tokens.len() as u64).sum();
        let prompt_tokens = prefix.as_ref().map_or(0, |prefix| prefix.tokens()) + suffix_tokens;
        if suffix_tokens == 0 {
            return Err(EngineError::Template(
                "the prompt adds nothing to the prefix".into(),
            ));
        }
        self.check_window(prompt_tokens + 1)?;
        let left = u64::from(self.inner.info.window_tokens) - prompt_tokens;
        let answer_tokens_max = u64::from(request.max_tokens.unwrap_or(u32::MAX).max(1)).min(left);
        let ticket = self.ticket(false)?;
        let constraints = self
            .build_constraints(request.constraint, request.choices.max(1))
            .await?;
        let (events, receiver) = mpsc::unbounded_channel();
        self.send_work(Work::Generate(Box::new(GenerateWork {
            ticket: Some(ticket),
            project: request.project,
            prefix,
            prefix_held_before: request.prefix_held_before,
            suffix,
            prompt_tokens,
            sampling: request.sampling,
            // Not secret: only has to differ from request to request.
            random_seed: self
                .inner
                .seeds
                .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed),
            constraints,
            answer_tokens_max: u32::try_from(answer_tokens_max).unwrap_or(u32::MAX),
            stop: request.stop,
            logprobs: request.logprobs,
            tools: request.tools,
            opens_thinking: request
                .suffix
                .last()
                .is_some_and(|text| crate::tools::opens_thinking(text)),
            events,
            received_at: Instant::now(),
        })))?;
        Ok(Generation { events: receiver })
    }

    async fn build_constraints(
        &self,
        grammar: Option<Grammar>,
        choices: u32,
    ) -> Result<Vec<Option<Box<dyn Constraint>>>, EngineError> {
        let Some(grammar) = grammar else {
            return Ok((0..choices).map(|_| None).collect());
        };
        let engine = self.clone();
        // A hostile schema may take most of a second before it is refused.
        tokio::task::spawn_blocking(move || {
            (0..choices)
                .map(|_| engine.inner.constraints.build(&grammar).map(Some))
                .collect()
        })
        .await
        .map_err(|_| EngineError::Failed("a schema could not be compiled".into()))?
    }

    /// Counters and gauges.
    pub fn status(&self) -> EngineStatus {
        let mut status = match self.inner.shared.status.lock() {
            Ok(status) => *status,
            Err(poisoned) => *poisoned.into_inner(),
        };
        status.queue_full_total = self.inner.shared.queue_full.load(Ordering::Relaxed);
        status
    }

    /// Whether the engine's thread is there.
    pub fn is_running(&self) -> bool {
        !self.inner.commands.is_closed()
    }

    /// Ends the thread: running answers end with `Stopped`, states on their way to disk get there.
    pub async fn stop(&self) {
        self.control(Command::Stop);
        let thread = match self.inner.worker.lock() {
            Ok(mut worker) => worker.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        if let Some(thread) = thread {
            // Joining blocks while the last states are written, so it does not belong on an async thread.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Sends all idle prefixes from KV to RAM, or to disk only, and waits until that is done. For tests and benchmarks.
    #[doc(hidden)]
    pub async fn demote_all(&self, to_disk: bool) {
        let (done, waiting) = oneshot::channel();
        self.control(Command::Demote { to_disk, done });
        let _ = waiting.await;
    }

    fn check_window(&self, needed: u64) -> Result<(), EngineError> {
        let window = u64::from(self.inner.info.window_tokens);
        if needed > window {
            return Err(EngineError::WindowExceeded { needed, window });
        }
        Ok(())
    }

    /// A place in the waiting line.
    fn ticket(&self, background: bool) -> Result<Ticket, EngineError> {
        let ticket = Ticket {
            shared: Arc::clone(&self.inner.shared),
            background,
        };
        let before = ticket.counter().fetch_add(1, Ordering::AcqRel);
        if before < self.inner.queue_max {
            return Ok(ticket);
        }
        self.inner.shared.queue_full.fetch_add(1, Ordering::Relaxed);
        Err(EngineError::QueueFull {
            retry_after: Duration::from_secs(1 + u64::from(before) / 16),
        })
    }

    fn send_work(&self, work: Work) -> Result<(), EngineError> {
        self.inner
            .commands
            .send(Command::Work(work))
            .map_err(|_| EngineError::Stopped)
    }

    fn control(&self, command: Command) {
        // Fails only when the thread has ended, and then there is nothing left to control.
        let _ = self.inner.commands.send(command);
    }
}

/// What saved states belong to. The key that seals them is a part of it: without it nobody can tell from a prefix's name
/// what it says, and states under another key, or under none, are removed.
fn fingerprint(options: &EngineOptions, of_model: String) -> String {
    match &options.state_key {
        Some(key) => key.name(&of_model),
        None => of_model,
    }
}

fn worker_options(
    options: &EngineOptions,
    info: &ModelInfo,
    sequences: u32,
    kv_tokens: u32,
    memory: u64,
    fingerprint: &str,
) -> WorkerOptions {
    WorkerOptions {
        slots: options.slots.max(1),
        sequences,
        kv_tokens,
        chunk_tokens: options.chunk_tokens.max(1),
        ram_bytes_max: options.ram_bytes_max.unwrap_or(memory / 8),
        idle_tokens_max: options.idle_tokens_max,
        state_dir: options.state_dir.clone(),
        state_fingerprint: PrefixKey::root("state", fingerprint),
        state_key: options.state_key.clone(),
        disk_bytes_max: options.disk_bytes_max,
        cuttable: info.cuttable,
    }
}

#[cfg(feature = "llama")]
fn kv_tokens(options: &EngineOptions, info: &ModelInfo, bytes_per_token: u64, memory: u64) -> u32 {
    let wanted = options.kv_tokens.unwrap_or_else(|| {
        let affordable = memory / 4 / bytes_per_token.max(1);
        u32::try_from(affordable)
            .unwrap_or(u32::MAX)
            .min(info.window_tokens.saturating_mul(3))
    });
    wanted.max(info.window_tokens)
}

#[cfg(feature = "llama")]
fn core_count() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
}

/// Memory of the machine in bytes; 4 GiB where it can't be told.
#[cfg(feature = "llama")]
fn memory_bytes() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(4 << 30, |kib| kib * 1024)
}

fn seed_from_time() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_nanos() as u64)
}
