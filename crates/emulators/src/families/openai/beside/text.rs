//! Embeddings, and text completions.

use data_encoding::BASE64;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Asked;
use crate::families::chat_wire;
use crate::families::openai::{Checked, check};
use crate::{Answer, Reply, sse, tokens};

/// Embedding models and the length of their vectors.
const EMBEDDING: &[(&str, u64)] = &[
    ("text-embedding-3-small", 1536),
    ("text-embedding-3-large", 3072),
    ("text-embedding-ada-002", 1536),
];
const INPUTS_MAX: usize = 2048;

const COMPLETION: &[&str] = &["gpt-3.5-turbo-instruct", "davinci-002", "babbage-002"];
/// Length of an answer that does not say, tokens.
const COMPLETION_TOKENS: u64 = 16;

pub(super) fn embed(asked: &Asked<'_>) -> Checked<Reply> {
    asked.only(&["model", "input", "encoding_format", "dimensions", "user"])?;
    let names: Vec<&str> = EMBEDDING.iter().map(|(name, _)| *name).collect();
    let model = asked.model(&names)?;
    let body = asked.body();
    let (_, most) = EMBEDDING.iter().find(|(name, _)| *name == model).unwrap();
    let length = match &body["dimensions"] {
        Value::Null => *most,
        _ if model == "text-embedding-ada-002" => return Err(check::unsupported("dimensions")),
        value => match value.as_u64().filter(|length| (1..=*most).contains(length)) {
            Some(length) => length,
            None => {
                return Err(check::bad_type(
                    "dimensions",
                    "an integer in the model's range",
                ));
            }
        },
    };
    let is_base64 = match body["encoding_format"].as_str() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            let value = &body["encoding_format"];
            return Err(check::bad_value(
                value,
                "encoding_format",
                &["float", "base64"],
            ));
        }
    };
    let inputs = texts(body, "input")?;
    if inputs.len() > INPUTS_MAX {
        return Err(check::invalid(
            "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.",
            None,
            None,
        ));
    }
    let input: u64 = inputs.iter().map(|text| tokens(text)).sum();
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = vector(model, text, length);
            let embedding = if is_base64 {
                let bytes: Vec<u8> = vector
                    .iter()
                    .flat_map(|number| number.to_le_bytes())
                    .collect();
                json!(BASE64.encode(&bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let answer = json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": input, "total_tokens": input},
    });
    Ok(Reply::json(200, &answer).charge(asked.charge("embeddings", input, 0)))
}

/// Of length one, and different for each text.
fn vector(model: &str, text: &str, length: u64) -> Vec<f32> {
    let mut numbers: Vec<f32> = Vec::new();
    let mut hash = Sha256::digest(format!("{model}\n{text}").as_bytes());
    while (numbers.len() as u64) < length {
        numbers.extend(hash.iter().map(|byte| f32::from(*byte) - 127.5));
        hash = Sha256::digest(hash);
    }
    numbers.truncate(usize::try_from(length).unwrap());
    let norm = numbers
        .iter()
        .map(|number| number * number)
        .sum::<f32>()
        .sqrt();
    numbers.iter().map(|number| number / norm).collect()
}

/// One text or several; token ids count as their own text.
fn texts(body: &Value, field: &str) -> Checked<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        Value::Array(ids) if !ids.is_empty() && ids.iter().all(Value::is_u64) => {
            Ok(value.to_string())
        }
        _ => Err(check::invalid(
            &format!(
                "'$.{field}' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
            ),
            None,
            None,
        )),
    };
    match &body[field] {
        Value::Null => Err(check::missing(field)),
        Value::Array(values)
            if values.iter().all(|value| !value.is_u64()) && !values.is_empty() =>
        {
            values.iter().map(text).collect()
        }
        value => Ok(vec![text(value)?]),
    }
}

pub(super) fn complete(asked: &Asked<'_>) -> Checked<Reply> {
    let body = asked.body();
    if body["model"]
        .as_str()
        .is_some_and(|name| name.starts_with("gpt-") && !COMPLETION.contains(&name))
    {
        let message = "This is a chat model and not supported in the v1/completions endpoint. Did you mean to use \
                       v1/chat/completions?";
        return Err(Box::new(chat_wire::error(
            404,
            message,
            "invalid_request_error",
            Some("model"),
            None,
        )));
    }
    let model = asked.model(COMPLETION)?;
    let prompts = texts(body, "prompt")?;
    let limit = body["max_tokens"].as_u64().unwrap_or(COMPLETION_TOKENS);
    let input: u64 = prompts.iter().map(|prompt| tokens(prompt)).sum();
    let answers: Vec<Answer> = prompts
        .iter()
        .flat_map(|prompt| {
            let said = asked.caller.desk.script.take(tokens(prompt), None);
            let mut answer = chat_wire::limited(said, Some(limit));
            if body["echo"] == true {
                answer.text = format!("{prompt}{}", answer.text);
            }
            vec![answer; usize::try_from(chat_wire::choices(body)).unwrap()]
        })
        .collect();
    let output: u64 = answers.iter().map(chat_wire::output_tokens).sum();
    let usage = json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": input + output,
    });
    let id = format!("cmpl-{:012x}", asked.caller.desk.next_id());
    let created = asked.caller.desk.now_ms / 1000;
    let object = |choices: Vec<Value>| json!({"id": id, "object": "text_completion", "created": created, "model": model, "choices": choices});
    let choice = |index: usize, text: &str, finish: Option<&str>| json!({"text": text, "index": index, "logprobs": null, "finish_reason": finish});
    let charge = asked.charge("completions", input, output);
    if !chat_wire::wants_stream(body) {
        let choices = answers
            .iter()
            .enumerate()
            .map(|(index, answer)| {
                choice(index, &answer.text, Some(chat_wire::finish_reason(answer)))
            })
            .collect();
        let mut answer = object(choices);
        answer["usage"] = usage;
        return Ok(Reply::json(200, &answer).charge(charge));
    }
    let wants_usage = chat_wire::wants_usage(body);
    let mut frames = Vec::new();
    let mut push = |choices: Vec<Value>, usage: Option<&Value>| {
        let mut chunk = object(choices);
        if wants_usage {
            chunk["usage"] = usage.cloned().unwrap_or(Value::Null);
        }
        frames.push(sse(&chunk));
    };
    for (index, answer) in answers.iter().enumerate() {
        for piece in answer.pieces() {
            push(vec![choice(index, &piece, None)], None);
        }
        push(
            vec![choice(index, "", Some(chat_wire::finish_reason(answer)))],
            None,
        );
    }
    if wants_usage {
        push(Vec::new(), Some(&usage));
    }
    frames.push("data: [DONE]\n\n".into());
    Ok(Reply::frames(frames).charge(charge))
}
