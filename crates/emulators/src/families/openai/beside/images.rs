//! Images: a picture of one pixel, whatever was asked for.

use serde_json::{Value, json};

use super::Asked;
use crate::families::chat_wire;
use crate::families::openai::{Checked, check};
use crate::{Reply, sse_event, tokens};

const MODELS: &[&str] = &["gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5"];

/// What a picture costs, tokens.
const IMAGE_TOKENS: u64 = 272;
const IMAGES_MAX: u64 = 10;

/// A PNG of one grey pixel.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";

pub(super) fn generate(asked: &Asked<'_>) -> Checked<Reply> {
    asked.model(MODELS)?;
    answer(asked, 0, "image_generation.completed")
}

pub(super) fn edit(asked: &Asked<'_>) -> Checked<Reply> {
    asked.model(MODELS)?;
    let size = asked.file("image")?.content.len() as u64;
    answer(asked, size.div_ceil(4), "image_edit.completed")
}

fn answer(asked: &Asked<'_>, image_tokens: u64, event: &str) -> Checked<Reply> {
    let body = asked.body();
    let text_tokens = tokens(asked.text("prompt")?);
    let count = match &body["n"] {
        Value::Null => 1,
        value => value
            .as_u64()
            .or_else(|| value.as_str()?.parse().ok())
            .filter(|count| (1..=IMAGES_MAX).contains(count))
            .ok_or_else(|| check::bad_type("n", "an integer from 1 to 10"))?,
    };
    let (input, output) = (text_tokens + image_tokens, IMAGE_TOKENS * count);
    let usage = json!({
        "total_tokens": input + output,
        "input_tokens": input,
        "output_tokens": output,
        "input_tokens_details": {"text_tokens": text_tokens, "image_tokens": image_tokens},
    });
    let created = asked.caller.desk.now_ms / 1000;
    let reply = if chat_wire::wants_stream(body) {
        let done = json!({"type": event, "b64_json": PNG, "created_at": created, "usage": usage});
        let partial = event.replace("completed", "partial_image");
        let first = json!({"type": partial, "b64_json": PNG, "created_at": created, "partial_image_index": 0});
        Reply::frames(vec![sse_event(&partial, &first), sse_event(event, &done)])
    } else {
        let data = vec![json!({"b64_json": PNG}); usize::try_from(count).unwrap()];
        Reply::json(
            200,
            &json!({"created": created, "data": data, "usage": usage}),
        )
    };
    Ok(reply.charge(asked.charge("images", input, output)))
}
