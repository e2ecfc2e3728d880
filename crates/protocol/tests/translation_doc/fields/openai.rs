//! OpenAI Chat Completions, with what Ark and others add.

use serde_json::{Value, json};

use super::{Row, extended, row, row_on};
use crate::{PROBE, PROBE_BASE64};

pub(crate) fn base() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "Hello."}]})
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = limits();
    rows.extend(answer());
    rows.extend(tools());
    rows.extend(messages());
    rows.extend(parts());
    rows.extend(others());
    rows
}

fn limits() -> Vec<Row> {
    vec![
        row("`model`", json!({"model": "m-2"})),
        row("`temperature`", json!({"temperature": 0.5})),
        row("`temperature` above 1", json!({"temperature": 1.5})),
        row("`top_p`", json!({"top_p": 0.5})),
        row("`frequency_penalty`", json!({"frequency_penalty": 0.5})),
        row("`presence_penalty`", json!({"presence_penalty": 0.5})),
        row("`seed`", json!({"seed": 7})),
        row("`logit_bias`", json!({"logit_bias": {"11": 1, "12": -1}})),
        row(
            "`max_completion_tokens`",
            json!({"max_completion_tokens": 100}),
        ),
        row("`max_tokens`", json!({"max_tokens": 100})),
        row("`stop`", json!({"stop": ["###"]})),
        row("`n` above 1", json!({"n": 2})),
        row("`logprobs`", json!({"logprobs": true})),
        row_on(
            "`top_logprobs`",
            json!({"logprobs": true}),
            json!({"top_logprobs": 3}),
        ),
    ]
}

fn answer() -> Vec<Row> {
    let format = |strict: bool, name: &str| {
        json!({"response_format": {"type": "json_schema", "json_schema": {
            "name": name, "strict": strict, "schema": {"type": "object"},
        }}})
    };
    vec![
        row(
            "`response_format`: `text`",
            json!({"response_format": {"type": "text"}}),
        ),
        row(
            "`response_format`: `json_object`",
            json!({"response_format": {"type": "json_object"}}),
        ),
        row("`response_format`: `json_schema`", format(false, "name-1")),
        row_on(
            "a schema's `name`",
            format(false, "name-1"),
            format(false, PROBE),
        ),
        row_on(
            "a schema's `strict`",
            format(false, "name-1"),
            format(true, "name-1"),
        ),
        row_on(
            "a schema's `description` beside it",
            format(false, "name-1"),
            {
                let mut format = format(false, "name-1");
                format["response_format"]["json_schema"]["description"] = PROBE.into();
                format
            },
        ),
        row("`verbosity`", json!({"verbosity": "low"})),
        row("`reasoning_effort`", json!({"reasoning_effort": "low"})),
        row("`modalities`", json!({"modalities": ["text", "audio"]})),
        row("`audio`", json!({"audio": {"voice": "v", "format": "wav"}})),
        row(
            "`prediction`",
            json!({"prediction": {"type": "content", "content": "a"}}),
        ),
        row("`stream`", json!({"stream": true})),
        row(
            "`stream_options.include_usage`",
            json!({"stream_options": {"include_usage": true}}),
        ),
        row(
            "`stream_options.include_obfuscation`",
            json!({"stream_options": {"include_obfuscation": false}}),
        ),
    ]
}

fn tools() -> Vec<Row> {
    let function = |extra: Value| {
        let function = extended(json!({"name": "tool_1"}), extra);
        json!({"tools": [{"type": "function", "function": function}]})
    };
    let bare = || function(json!({}));
    let choice = |choice: Value| json!({"tool_choice": choice});
    vec![
        row(
            "`tools`",
            function(json!({"description": "What it does.", "parameters": {"type": "object"}})),
        ),
        row_on(
            "a tool's `description`",
            bare(),
            function(json!({"description": PROBE})),
        ),
        row_on(
            "a tool's `parameters`",
            bare(),
            function(
                json!({"parameters": {"type": "object", "description": PROBE, "properties": {"a": {"type": "string"}}}}),
            ),
        ),
        row_on(
            "a tool's `strict`",
            bare(),
            function(json!({"strict": true})),
        ),
        row(
            "a tool of the type `custom`",
            json!({"tools": [{"type": "custom", "custom": {"name": "tool_1"}}]}),
        ),
        row_on("`tool_choice`: `auto`", bare(), choice(json!("auto"))),
        row_on("`tool_choice`: `none`", bare(), choice(json!("none"))),
        row_on(
            "`tool_choice`: `required`",
            bare(),
            choice(json!("required")),
        ),
        row_on(
            "`tool_choice`: a function",
            bare(),
            choice(json!({"type": "function", "function": {"name": "tool_1"}})),
        ),
        row_on(
            "`tool_choice`: `allowed_tools`",
            bare(),
            choice(
                json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}),
            ),
        ),
        row_on(
            "`parallel_tool_calls`: false",
            bare(),
            json!({"parallel_tool_calls": false}),
        ),
        row(
            "`functions`",
            json!({"functions": [{"name": "tool_1", "parameters": {"type": "object"}}]}),
        ),
        row_on(
            "`function_call`",
            json!({"functions": [{"name": "tool_1"}]}),
            json!({"function_call": {"name": "tool_1"}}),
        ),
        row(
            "`web_search_options`",
            json!({"web_search_options": {"search_context_size": "low"}}),
        ),
    ]
}

fn asked(before: Vec<Value>) -> Value {
    let mut messages = before;
    messages.push(json!({"role": "user", "content": "Hello."}));
    json!({"messages": messages})
}

fn messages() -> Vec<Row> {
    let answer = |fields: Value| {
        let answer = extended(json!({"role": "assistant", "content": "Two."}), fields);
        asked(vec![json!({"role": "user", "content": "One?"}), answer])
    };
    let call = |id: &str, name: &str, arguments: &str, result: &str| {
        json!({"messages": [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "tool_calls": [{"id": id, "type": "function", "function": {
                "name": name, "arguments": arguments,
            }}]},
            {"role": "tool", "tool_call_id": id, "content": result},
        ]})
    };
    let called = || call("call_1", "tool_1", "{}", "Done.");
    vec![
        row(
            "message of `system`",
            asked(vec![json!({"role": "system", "content": PROBE})]),
        ),
        row(
            "message of `developer`",
            asked(vec![json!({"role": "developer", "content": PROBE})]),
        ),
        row(
            "message of `user`",
            asked(vec![json!({"role": "user", "content": PROBE})]),
        ),
        row("message of `assistant`", answer(json!({"content": PROBE}))),
        row("message of `tool`", call("call_1", "tool_1", "{}", PROBE)),
        row(
            "message of `function`",
            asked(vec![
                json!({"role": "function", "name": "tool_1", "content": "Done."}),
            ]),
        ),
        row(
            "`name` of a message",
            json!({"messages": [{"role": "user", "content": "Hello.", "name": PROBE}]}),
        ),
        row_on(
            "`tool_calls`: the id, with `tool_call_id`",
            called(),
            call(PROBE, "tool_1", "{}", "Done."),
        ),
        row_on(
            "`tool_calls`: the name",
            called(),
            call("call_1", PROBE, "{}", "Done."),
        ),
        row_on(
            "`tool_calls`: the arguments",
            called(),
            call("call_1", "tool_1", "{\"a\":\"PROBE\"}", "Done."),
        ),
        row_on(
            "`function_call` of an answer",
            answer(json!({})),
            answer(json!({"function_call": {"name": "tool_1", "arguments": "{}"}})),
        ),
        row_on(
            "`refusal` of an answer",
            answer(json!({})),
            answer(json!({"refusal": PROBE})),
        ),
        row_on(
            "a part `refusal` of an answer",
            answer(json!({})),
            answer(json!({"content": [{"type": "refusal", "refusal": PROBE}]})),
        ),
        row_on(
            "`reasoning_content` of an answer",
            answer(json!({})),
            answer(json!({"reasoning_content": PROBE})),
        ),
        row_on(
            "`audio` of an answer",
            answer(json!({})),
            answer(json!({"audio": {"id": "audio_1"}})),
        ),
        row_on(
            "`annotations` of an answer",
            answer(json!({})),
            answer(json!({"annotations": []})),
        ),
    ]
}

fn parts() -> Vec<Row> {
    let part = |part: Value| json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello."}, part]}]});
    let image = |fields: Value| {
        let image = extended(
            json!({"url": format!("data:image/png;base64,{PROBE_BASE64}")}),
            fields,
        );
        part(json!({"type": "image_url", "image_url": image}))
    };
    let pdf = format!("data:application/pdf;base64,{PROBE_BASE64}");
    vec![
        row("part `text`", part(json!({"type": "text", "text": PROBE}))),
        row("part `image_url`: a `data:` URL", image(json!({}))),
        row(
            "part `image_url`: an `https:` URL",
            image(json!({"url": "https://example.org/PROBE.png"})),
        ),
        row_on(
            "an image's `detail`",
            image(json!({})),
            image(json!({"detail": "high"})),
        ),
        row(
            "part `input_audio`",
            part(
                json!({"type": "input_audio", "input_audio": {"data": PROBE_BASE64, "format": "wav"}}),
            ),
        ),
        row(
            "part `file`: `file_data`",
            part(json!({"type": "file", "file": {"file_data": pdf}})),
        ),
        row(
            "part `file`: `filename`",
            part(
                json!({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "PROBE.pdf"}}),
            ),
        ),
        row(
            "part `file`: `file_id`",
            part(json!({"type": "file", "file": {"file_id": "file-1"}})),
        ),
        row(
            "a part of another type",
            part(json!({"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}})),
        ),
        row_on(
            "`prompt_cache_breakpoint` of a part",
            part(json!({"type": "text", "text": "And?"})),
            part(
                json!({"type": "text", "text": "And?", "prompt_cache_breakpoint": {"mode": "explicit"}}),
            ),
        ),
        row_on(
            "`cache_control` of a part",
            part(json!({"type": "text", "text": "And?"})),
            part(json!({"type": "text", "text": "And?", "cache_control": {"type": "ephemeral"}})),
        ),
    ]
}

fn others() -> Vec<Row> {
    vec![
        row("`user`", json!({"user": PROBE})),
        row("`safety_identifier`", json!({"safety_identifier": PROBE})),
        row("`service_tier`", json!({"service_tier": "flex"})),
        row("`store`", json!({"store": true})),
        row("`metadata`", json!({"metadata": {"a": "1", "b": "2"}})),
        row("`prompt_cache_key`", json!({"prompt_cache_key": PROBE})),
        row(
            "`prompt_cache_options`",
            json!({"prompt_cache_options": {"mode": "explicit"}}),
        ),
        row(
            "`prompt_cache_retention`",
            json!({"prompt_cache_retention": "24h"}),
        ),
        row("`moderation`", json!({"moderation": {"model": "m-2"}})),
        row(
            "`context_id`",
            json!({"context_id": "ctx-20261122120000-abcdefghjkmnpqrstvwxyz2345"}),
        ),
        row("`mode`", json!({"mode": "session"})),
        row(
            "`thinking` (Ark)",
            json!({"thinking": {"type": "disabled"}}),
        ),
        row(
            "`repetition_penalty` (Ark and others)",
            json!({"repetition_penalty": 1.5}),
        ),
        row("`top_k` (others)", json!({"top_k": 40})),
        row(
            "a field that the gateway does not know",
            json!({"something_new": PROBE}),
        ),
    ]
}
