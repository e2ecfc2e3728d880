//! llama.cpp behind the [`Model`] and [`Vocabulary`] traits. The only module with `unsafe`.
#![allow(
    unsafe_code,
    reason = "sequence states and quantising have no safe binding; each use states why it is sound"
)]

use std::fs::File;
use std::io::Read;
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::context::session::LlamaStateSeqFlags;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;

use crate::Token;
use crate::constraint::ConstraintFactory;
use crate::error::EngineError;
use crate::model::{BatchToken, Model, ModelInfo, Sequence, Vocabulary};

/// Most sequences llama.cpp can tell apart (`LLAMA_MAX_SEQ` in its 0.6.0 sources).
pub const SEQUENCES_MAX: u32 = 256;

/// Weight formats [`requantize`] can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// 8 bits a weight: next to no loss, and the fastest prefill of those with no loss on CPUs.
    Q8_0,
    /// 4 bits a weight: half the memory, some loss.
    Q4_0,
    /// 16 bits a weight.
    F16,
    /// The file is left as it came.
    Keep,
}

impl Quantization {
    /// The format's usual name.
    pub fn as_str(self) -> &'static str {
        match self {
            Quantization::Q8_0 => "q8_0",
            Quantization::Q4_0 => "q4_0",
            Quantization::F16 => "f16",
            Quantization::Keep => "as shipped",
        }
    }
}

/// A loaded model file. Threads share it; one of them makes the [`LlamaWindow`].
pub struct LlamaWeights {
    model: LlamaModel,
    fingerprint: String,
    file_bytes: u64,
}

/// Sizes of the KV cache and the batches.
#[derive(Debug, Clone, Copy)]
pub struct WindowOptions {
    /// Cells shared by all sequences, tokens.
    pub kv_tokens: u32,
    /// Most tokens of one `decode`.
    pub batch_tokens_max: u32,
    /// Most sequences.
    pub sequences_max: u32,
    /// CPU threads.
    pub threads: u32,
    /// Whether attention runs as one fused kernel.
    pub flash_attention: bool,
}

/// A model with its KV cache.
pub struct LlamaWindow<'model> {
    window: LlamaContext<'model>,
    batch: LlamaBatch<'static>,
    vocabulary_size: usize,
    cuttable: bool,
}

fn backend() -> Result<&'static LlamaBackend, EngineError> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    BACKEND
        .get_or_init(|| {
            llama_cpp_2::send_logs_to_tracing(llama_cpp_2::LogOptions::default());
            LlamaBackend::init().map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(|error| EngineError::Failed(error.clone()))
}

/// Refuses what is plainly not a GGUF file before llama.cpp sees it.
///
/// # Errors
/// `Model`, saying what is wrong with the file.
pub fn check_header(path: &Path) -> Result<u64, EngineError> {
    let problem = |text: String| EngineError::Model(text);
    let mut file =
        File::open(path).map_err(|error| problem(format!("it can't be opened: {error}")))?;
    let bytes = file
        .metadata()
        .map_err(|error| problem(format!("it can't be read: {error}")))?
        .len();
    let mut header = [0_u8; 8];
    file.read_exact(&mut header)
        .map_err(|_| problem(format!("it has only {bytes} bytes and is not a GGUF file")))?;
    if &header[..4] != b"GGUF" {
        return Err(problem("it is not a GGUF file (wrong magic number)".into()));
    }
    let version = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if !(2..=3).contains(&version) {
        return Err(problem(format!(
            "its GGUF version {version} is not supported"
        )));
    }
    Ok(bytes)
}

fn fingerprint(path: &Path) -> Result<String, EngineError> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(|error| EngineError::Model(error.to_string()))?;
    hasher
        .update_reader(file)
        .map_err(|error| EngineError::Model(error.to_string()))?;
    Ok(hasher.finalize().to_hex().to_string())
}

impl LlamaWeights {
    /// Loads a model file.
    ///
    /// # Errors
    /// `Model` when the file is missing, damaged or of an architecture llama.cpp does not know.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        let file_bytes = check_header(path)?;
        let fingerprint = fingerprint(path)?;
        let model = LlamaModel::load_from_file(backend()?, path, &LlamaModelParams::default())
            .map_err(|_| {
                EngineError::Model(
                    "llama.cpp refuses it: damaged, truncated or of an unknown architecture".into(),
                )
            })?;
        Ok(LlamaWeights {
            model,
            fingerprint,
            file_bytes,
        })
    }

    /// Facts about the model; `window_tokens` is what a request may use.
    pub fn info(&self, window_tokens: Option<u32>) -> ModelInfo {
        let trained = self.model.n_ctx_train();
        let architecture = self.meta("general.architecture").unwrap_or_default();
        let sliding = self
            .meta(&format!("{architecture}.attention.sliding_window"))
            .is_some_and(|width| width.trim() != "0");
        ModelInfo {
            fingerprint: self.fingerprint.clone(),
            architecture,
            name: self.meta("general.name"),
            parameters: self.model.n_params(),
            file_bytes: self.file_bytes,
            window_tokens: window_tokens.unwrap_or(trained).min(trained),
            trained_window_tokens: trained,
            cuttable: !(self.model.is_recurrent() || self.model.is_hybrid() || sliding),
        }
    }

    /// Bytes one token takes in an f16 KV cache, as far as the file's metadata tells.
    pub fn kv_bytes_per_token(&self) -> u64 {
        let heads = u64::from(self.model.n_head().max(1));
        let kv_heads = u64::from(self.model.n_head_kv().max(1));
        let width = u64::try_from(self.model.n_embd()).unwrap_or(0);
        u64::from(self.model.n_layer()) * 2 * (width / heads) * kv_heads * 2
    }

    /// The chat template in the file (Jinja text), and the texts of the tokens that begin and end a sequence.
    pub fn chat_template(&self) -> (Option<String>, String, String) {
        let text = |token: LlamaToken| {
            if token.0 < 0 {
                return String::new();
            }
            String::from_utf8_lossy(&self.model.vocab().token_to_piece(token, true, None))
                .into_owned()
        };
        let vocabulary = self.model.vocab();
        (
            self.meta("tokenizer.chat_template"),
            text(vocabulary.bos()),
            text(vocabulary.eos()),
        )
    }

    /// The token every prompt must begin with, for models that want one.
    pub fn begin_token(&self) -> Option<Token> {
        let vocabulary = self.model.vocab();
        (vocabulary.should_add_bos() && vocabulary.bos().0 >= 0).then(|| vocabulary.bos().0)
    }

    /// Grammar support; its token table is built at first use.
    pub fn constraints(self: &Arc<Self>) -> ConstraintFactory {
        let weights = Arc::clone(self);
        ConstraintFactory::lazy(Box::new(move || {
            LlamaSampler::llguidance_tok_env(&weights.model)
        }))
    }

    /// Allocates the KV cache. At most one window of a model may exist, made by the thread that uses it.
    ///
    /// # Errors
    /// `Failed` when the memory can't be had.
    pub fn window(&self, options: WindowOptions) -> Result<LlamaWindow<'_>, EngineError> {
        let flash_attention = if options.flash_attention {
            llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_ENABLED
        } else {
            llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_DISABLED
        };
        let threads = i32::try_from(options.threads).unwrap_or(1);
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(options.kv_tokens))
            .with_n_batch(options.batch_tokens_max)
            .with_n_ubatch(options.batch_tokens_max)
            .with_n_seq_max(options.sequences_max.min(SEQUENCES_MAX))
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_flash_attention_policy(flash_attention)
            .with_kv_unified(true)
            // Sliding-window layers keep all cells, so that a sequence copied at its end is whole.
            .with_swa_full(true);
        let window = self
            .model
            .new_context(backend()?, params)
            .map_err(|error| {
                EngineError::Failed(format!("the KV cache can't be allocated: {error}"))
            })?;
        Ok(LlamaWindow {
            window,
            batch: LlamaBatch::new(options.batch_tokens_max as usize, 1),
            vocabulary_size: usize::try_from(self.model.vocab().n_tokens()).unwrap_or(0),
            cuttable: self.info(None).cuttable,
        })
    }

    fn meta(&self, key: &str) -> Option<String> {
        self.model.meta_val_str(key).ok()
    }
}

impl Vocabulary for LlamaWeights {
    fn tokenize(&self, text: &str) -> Vec<Token> {
        self.model
            .vocab()
            .tokenize(text.as_bytes(), false, true)
            .into_iter()
            .map(|token| token.0)
            .collect()
    }

    fn piece(&self, token: Token) -> Vec<u8> {
        self.model
            .vocab()
            .token_to_piece(LlamaToken(token), false, None)
    }

    fn is_end_of_generation(&self, token: Token) -> bool {
        self.model.vocab().is_eog(LlamaToken(token))
    }
}

impl LlamaWindow<'_> {
    fn clear_sequence(&mut self, sequence: Sequence) {
        // A negative range means all; llama.cpp never fails to remove a whole sequence.
        let removed = self.window.kv_cache_seq_rm(sequence, None, None);
        debug_assert!(removed.is_ok());
    }

    fn state_of(&self, sequence: Sequence) -> Result<Vec<u8>, EngineError> {
        let flags = LlamaStateSeqFlags::empty();
        let size = self.window.state_seq_get_size_ext(sequence, flags);
        let mut bytes = vec![0_u8; size];
        // SAFETY: the buffer has exactly the size llama.cpp announced for this sequence, and nothing runs in between.
        let written = unsafe {
            self.window
                .state_seq_get_data_ext(bytes.as_mut_ptr(), sequence, flags)
        };
        if written != size {
            return Err(EngineError::Failed(format!(
                "a sequence state has {written} bytes where {size} were announced"
            )));
        }
        Ok(bytes)
    }

    fn set_state(&mut self, sequence: Sequence, bytes: &[u8]) -> Result<(), EngineError> {
        // SAFETY: the caller has authenticated the bytes: they were written by `state_of` of the same engine version,
        // model file and KV layout. llama.cpp checks sizes and shapes while it reads.
        let loaded = unsafe {
            self.window
                .state_seq_set_data_ext(bytes, sequence, LlamaStateSeqFlags::empty())
        };
        if loaded {
            return Ok(());
        }
        // A failed restore leaves cells behind (ggml-org/llama.cpp#27068).
        self.clear_sequence(sequence);
        Err(EngineError::Failed("a saved state was refused".into()))
    }

    fn share(&mut self, from: Sequence, to: Sequence, positions: &Range<u32>) {
        let copied =
            self.window
                .copy_kv_cache_seq(from, to, Some(positions.start), Some(positions.end));
        debug_assert!(copied.is_ok());
    }
}

impl Model for LlamaWindow<'_> {
    fn decode(&mut self, batch: &[BatchToken]) -> Result<(), EngineError> {
        self.batch.clear();
        for item in batch {
            self.batch
                .add(
                    LlamaToken(item.token),
                    i32::try_from(item.position).unwrap_or(i32::MAX),
                    &[item.sequence],
                    item.logits,
                )
                .map_err(|error| EngineError::Failed(error.to_string()))?;
        }
        self.window
            .decode(&mut self.batch)
            .map_err(|error| EngineError::Failed(error.to_string()))
    }

    fn logits(&self, index: usize) -> &[f32] {
        let logits = self
            .window
            .get_logits_ith(i32::try_from(index).unwrap_or(-1));
        &logits[..self.vocabulary_size.min(logits.len())]
    }

    fn copy(&mut self, from: Sequence, to: Sequence, positions: Range<u32>) {
        if self.cuttable {
            self.share(from, to, &positions);
        } else {
            // A recurrent state is one cell: only the whole sequence can be copied.
            let copied = self.window.copy_kv_cache_seq(from, to, None, None);
            debug_assert!(copied.is_ok());
        }
    }

    fn clear(&mut self, sequence: Sequence) {
        self.clear_sequence(sequence);
    }

    fn save(
        &mut self,
        sequence: Sequence,
        positions: Range<u32>,
        scratch: Sequence,
    ) -> Result<Vec<u8>, EngineError> {
        if !self.cuttable || positions.start == 0 {
            return self.state_of(sequence);
        }
        self.share(sequence, scratch, &positions);
        let bytes = self.state_of(scratch);
        self.clear_sequence(scratch);
        bytes
    }

    fn load(
        &mut self,
        sequence: Sequence,
        positions: Range<u32>,
        bytes: &[u8],
        scratch: Sequence,
    ) -> Result<(), EngineError> {
        if !self.cuttable || positions.start == 0 {
            return self.set_state(sequence, bytes);
        }
        if let Err(error) = self.set_state(scratch, bytes) {
            self.clear_sequence(sequence);
            return Err(error);
        }
        self.share(scratch, sequence, &positions);
        self.clear_sequence(scratch);
        Ok(())
    }
}

/// Writes the model at `from` to `to` in another weight format. Takes about half a second for the default model.
///
/// # Errors
/// `Model` when the file can't be read or converted; `to` is then to be thrown away.
pub fn requantize(from: &Path, to: &Path, kind: Quantization) -> Result<(), EngineError> {
    check_header(from)?;
    backend()?;
    let c_path = |path: &Path| {
        path.to_str()
            .and_then(|text| std::ffi::CString::new(text).ok())
            .ok_or_else(|| EngineError::Model("its path is not valid UTF-8".into()))
    };
    let (input, output) = (c_path(from)?, c_path(to)?);
    // SAFETY: the function only fills a plain struct.
    let mut params = unsafe { llama_cpp_sys_2::llama_model_quantize_default_params() };
    params.allow_requantize = true;
    params.ftype = match kind {
        Quantization::Q8_0 => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q8_0,
        Quantization::Q4_0 => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_Q4_0,
        Quantization::F16 => llama_cpp_sys_2::LLAMA_FTYPE_MOSTLY_F16,
        Quantization::Keep => {
            std::fs::copy(from, to).map_err(|error| EngineError::Model(error.to_string()))?;
            return Ok(());
        }
    };
    // SAFETY: both paths are NUL-terminated strings and `params` is a filled struct; all outlive the call.
    let status = unsafe {
        llama_cpp_sys_2::llama_model_quantize(input.as_ptr(), output.as_ptr(), &raw const params)
    };
    if status == 0 {
        Ok(())
    } else {
        Err(EngineError::Model(
            "llama.cpp could not convert its weights".into(),
        ))
    }
}
