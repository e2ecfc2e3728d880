//! Log probabilities of an answer's tokens.

use serde_json::Value;

use crate::chat::TokenLogprob;

/// What OpenAI gives for "too small to tell".
const LOGPROB_MIN: f32 = -9999.0;

/// `logprobs` of a choice. What is malformed in it is left out: an answer does not fail for it.
pub(super) fn read(choice: &Value) -> Vec<TokenLogprob> {
    let Some(tokens) = choice["logprobs"]["content"].as_array() else {
        return Vec::new();
    };
    tokens
        .iter()
        .filter_map(|token| {
            let (text, bytes, logprob) = read_token(token)?;
            let top = token["top_logprobs"].as_array();
            Some(TokenLogprob {
                token: text,
                bytes,
                logprob,
                top: top.into_iter().flatten().filter_map(read_token).collect(),
            })
        })
        .collect()
}

fn read_token(token: &Value) -> Option<(String, Vec<u8>, f32)> {
    let text = token["token"].as_str()?;
    let bytes = token["bytes"].as_array().and_then(|bytes| {
        bytes
            .iter()
            .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
            .collect()
    });
    let logprob = token["logprob"].as_f64().map(|logprob| logprob as f32);
    Some((
        text.to_owned(),
        bytes.unwrap_or_else(|| text.as_bytes().to_vec()),
        logprob
            .filter(|logprob| logprob.is_finite())
            .unwrap_or(LOGPROB_MIN),
    ))
}
