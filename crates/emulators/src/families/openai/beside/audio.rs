//! Speech from text, and text from speech.

use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::json;

use super::{Asked, raw};
use crate::families::chat_wire;
use crate::families::openai::{Checked, check};
use crate::{Answer, Reply, hash_hex, sse, tokens};

const SPEAKERS: &[&str] = &["tts-1", "tts-1-hd", "gpt-4o-mini-tts"];
const WRITERS: &[&str] = &["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"];
/// The only one that translates.
const TRANSLATOR: &[&str] = &["whisper-1"];

const SOUNDS: &[(&str, &str)] = &[
    ("mp3", "audio/mpeg"),
    ("opus", "audio/opus"),
    ("aac", "audio/aac"),
    ("flac", "audio/flac"),
    ("wav", "audio/wav"),
    ("pcm", "audio/pcm"),
];
const TEXTS: &[&str] = &["json", "text", "srt", "verbose_json", "vtt"];

/// Bytes of a second of sound, for the length of files.
const SECOND_BYTES: u64 = 16_000;

pub(super) fn speak(asked: &Asked<'_>) -> Checked<Reply> {
    asked.only(&[
        "model",
        "input",
        "voice",
        "instructions",
        "response_format",
        "speed",
        "stream_format",
    ])?;
    let model = asked.model(SPEAKERS)?;
    let text = asked.text("input")?;
    asked.text("voice")?;
    let body = asked.body();
    let format = body["response_format"].as_str().unwrap_or("mp3");
    let Some((_, content_type)) = SOUNDS.iter().find(|(name, _)| *name == format) else {
        let names: Vec<&str> = SOUNDS.iter().map(|(name, _)| *name).collect();
        return Err(check::bad_value(
            &body["response_format"],
            "response_format",
            &names,
        ));
    };
    let pieces: Vec<Bytes> = text.split_inclusive(' ').map(sound).collect();
    let (input, output) = (tokens(text), pieces.len() as u64 * 20);
    let charge = asked.charge("speech", input, output);
    if body["stream_format"] == "sse" {
        if model != "gpt-4o-mini-tts" {
            return Err(check::unsupported("stream_format"));
        }
        let mut frames: Vec<Bytes> = pieces
            .iter()
            .map(|piece| sse(&json!({"type": "speech.audio.delta", "audio": BASE64.encode(piece)})))
            .collect();
        let usage =
            json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
        frames.push(sse(&json!({"type": "speech.audio.done", "usage": usage})));
        return Ok(Reply::frames(frames).charge(charge));
    }
    Ok(raw(content_type, pieces).charge(charge))
}

/// Every byte there is, and what tells the word.
fn sound(word: &str) -> Bytes {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend_from_slice(hash_hex(word).as_bytes());
    bytes.into()
}

pub(super) fn transcribe(asked: &Asked<'_>) -> Checked<Reply> {
    let model = asked.model(WRITERS)?;
    write_down(asked, model)
}

pub(super) fn translate(asked: &Asked<'_>) -> Checked<Reply> {
    let model = asked.model(TRANSLATOR)?;
    write_down(asked, model)
}

fn write_down(asked: &Asked<'_>, model: &str) -> Checked<Reply> {
    let file = asked.file("file")?;
    let body = asked.body();
    let format = body["response_format"].as_str().unwrap_or("json");
    if !TEXTS.contains(&format) {
        return Err(check::bad_value(
            &body["response_format"],
            "response_format",
            TEXTS,
        ));
    }
    let is_whisper = model == "whisper-1";
    if !is_whisper && format != "json" {
        let message = format!(
            "response_format '{format}' is not compatible with model '{model}'. Use 'json' instead."
        );
        return Err(check::invalid(
            &message,
            Some("response_format"),
            Some("unsupported_value"),
        ));
    }
    let size = file.content.len() as u64;
    let text = format!(
        "{} has {size} bytes.",
        file.file_name.as_deref().unwrap_or_default()
    );
    let (input, output) = (size.div_ceil(1_000), tokens(&text));
    let seconds = size.div_ceil(SECOND_BYTES);
    let usage = if is_whisper {
        json!({"type": "duration", "seconds": seconds})
    } else {
        json!({
            "type": "tokens",
            "input_tokens": input,
            "input_token_details": {"text_tokens": 0, "audio_tokens": input},
            "output_tokens": output,
            "total_tokens": input + output,
        })
    };
    let charge = asked.charge("transcription", input, output);
    if chat_wire::wants_stream(body) && !is_whisper {
        let mut frames: Vec<Bytes> = Answer::text(text.as_str())
            .pieces()
            .iter()
            .map(|piece| sse(&json!({"type": "transcript.text.delta", "delta": piece})))
            .collect();
        frames.push(sse(
            &json!({"type": "transcript.text.done", "text": text, "usage": usage}),
        ));
        return Ok(Reply::frames(frames).charge(charge));
    }
    let reply = match format {
        "json" => Reply::json(200, &json!({"text": text, "usage": usage})),
        "verbose_json" => Reply::json(
            200,
            &json!({"task": "transcribe", "language": "english", "duration": seconds, "text": text, "segments": [], "usage": usage}),
        ),
        "srt" => raw(
            "text/plain; charset=utf-8",
            vec![format!("1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n").into()],
        ),
        "vtt" => raw(
            "text/plain; charset=utf-8",
            vec![format!("WEBVTT\n\n00:00.000 --> 00:01.000\n{text}\n\n").into()],
        ),
        _ => raw(
            "text/plain; charset=utf-8",
            vec![format!("{text}\n").into()],
        ),
    };
    Ok(reply.charge(charge))
}
