//! OpenAI Responses, with what Ark adds.

use serde_json::{Value, json};

use super::{Row, extended, row, row_on};
use crate::{PROBE, PROBE_BASE64};

pub(crate) fn base() -> Value {
    json!({"model": "m", "store": false, "input": [{"role": "user", "content": "Hello."}]})
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = limits();
    rows.extend(answer());
    rows.extend(tools());
    rows.extend(state());
    rows.extend(items());
    rows.extend(parts());
    rows.extend(others());
    rows
}

fn limits() -> Vec<Row> {
    let include = || json!({"include": ["message.output_text.logprobs"]});
    vec![
        row("`model`", json!({"model": "m-2"})),
        row("`temperature`", json!({"temperature": 0.5})),
        row("`temperature` above 1", json!({"temperature": 1.5})),
        row("`top_p`", json!({"top_p": 0.5})),
        row("`max_output_tokens`", json!({"max_output_tokens": 100})),
        row("`max_tool_calls`", json!({"max_tool_calls": 3})),
        row("`include`: `message.output_text.logprobs`", include()),
        row_on(
            "`top_logprobs` beside it",
            include(),
            json!({"top_logprobs": 3}),
        ),
        row("`top_logprobs` without it", json!({"top_logprobs": 3})),
        row(
            "`include`: other words",
            json!({"include": ["reasoning.encrypted_content"]}),
        ),
    ]
}

fn answer() -> Vec<Row> {
    let format = |strict: bool, name: &str| {
        json!({"text": {"format": {
            "type": "json_schema", "name": name, "strict": strict, "schema": {"type": "object"},
        }}})
    };
    let plain = || format(false, "name-1");
    vec![
        row(
            "`text.format`: `text`",
            json!({"text": {"format": {"type": "text"}}}),
        ),
        row(
            "`text.format`: `json_object`",
            json!({"text": {"format": {"type": "json_object"}}}),
        ),
        row("`text.format`: `json_schema`", plain()),
        row_on("a schema's `name`", plain(), format(false, PROBE)),
        row_on("a schema's `strict`", plain(), format(true, "name-1")),
        row_on("a schema's `description` beside it", plain(), {
            let mut format = plain();
            format["text"]["format"]["description"] = PROBE.into();
            format
        }),
        row("`text.verbosity`", json!({"text": {"verbosity": "low"}})),
        row(
            "`reasoning.effort`",
            json!({"reasoning": {"effort": "low"}}),
        ),
        row(
            "`reasoning.summary`",
            json!({"reasoning": {"summary": "auto"}}),
        ),
        row(
            "`reasoning.generate_summary`",
            json!({"reasoning": {"generate_summary": "auto"}}),
        ),
        row("`stream`", json!({"stream": true})),
        row(
            "`stream_options`",
            json!({"stream_options": {"include_obfuscation": false}}),
        ),
        row("`background`: true", json!({"background": true})),
        row("`background`: false", json!({"background": false})),
        row("`truncation`", json!({"truncation": "auto"})),
    ]
}

fn tools() -> Vec<Row> {
    let function = |extra: Value| {
        let function = extended(json!({"type": "function", "name": "tool_1"}), extra);
        json!({"tools": [function]})
    };
    let bare = || function(json!({}));
    let choice = |choice: Value| json!({"tool_choice": choice});
    let two = || json!({"tools": [{"type": "function", "name": "tool_1"}, {"type": "function", "name": "tool_2"}]});
    vec![
        row(
            "`tools`: `function`",
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
            "`tools`: `web_search` and others that OpenAI runs",
            json!({"tools": [{"type": "web_search"}]}),
        ),
        row(
            "`tools`: `custom`",
            json!({"tools": [{"type": "custom", "name": "tool_1"}]}),
        ),
        row(
            "`tools`: `mcp`",
            json!({"tools": [{"type": "mcp", "server_label": "a", "server_url": "https://example.org"}]}),
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
            choice(json!({"type": "function", "name": "tool_1"})),
        ),
        row_on(
            "`tool_choice`: `allowed_tools`",
            two(),
            choice(
                json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "tool_1"}]}),
            ),
        ),
        row_on(
            "`tool_choice`: a tool that OpenAI runs",
            bare(),
            choice(json!({"type": "web_search"})),
        ),
        row_on(
            "`parallel_tool_calls`: false",
            bare(),
            json!({"parallel_tool_calls": false}),
        ),
    ]
}

fn state() -> Vec<Row> {
    vec![
        row("`store`: true", json!({"store": true})),
        row(
            "`previous_response_id`",
            json!({"previous_response_id": "resp_1"}),
        ),
        row("`conversation`", json!({"conversation": {"id": "conv_1"}})),
        row(
            "`context_id`",
            json!({"context_id": "ctx-20261122120000-abcdefghjkmnpqrstvwxyz2345"}),
        ),
        row("`prompt`", json!({"prompt": {"id": "pmpt_1"}})),
        row(
            "`context_management`",
            json!({"context_management": [{"type": "compaction"}]}),
        ),
        row("`session`", json!({"session": "sess_1"})),
        row_on(
            "`caching` (Ark)",
            json!({"store": true}),
            json!({"store": true, "caching": {"type": "enabled", "prefix": true}}),
        ),
        row_on(
            "`expire_at` (Ark)",
            json!({"store": true}),
            json!({"store": true, "expire_at": 1_800_086_400}),
        ),
        row_on(
            "`thinking` (Ark), beside such fields",
            json!({"caching": {"type": "enabled"}}),
            json!({"thinking": {"type": "disabled"}}),
        ),
        row(
            "`thinking.budget_tokens` (Ark)",
            json!({"thinking": {"budget_tokens": 2048}}),
        ),
        row(
            "`thinking` without them",
            json!({"thinking": {"type": "disabled"}}),
        ),
    ]
}

fn asked(before: Value) -> Value {
    let mut input = before.as_array().unwrap().clone();
    input.push(json!({"role": "user", "content": "Hello."}));
    json!({"input": input})
}

fn items() -> Vec<Row> {
    let message = |role: &str| asked(json!([{"type": "message", "role": role, "content": PROBE}]));
    let answer = |fields: Value, part: Value| {
        let answer = extended(
            json!({"type": "message", "role": "assistant", "content": [part]}),
            fields,
        );
        asked(json!([{"role": "user", "content": "One?"}, answer]))
    };
    let said = || json!({"type": "output_text", "text": "Two."});
    let plain = || answer(json!({}), said());
    let reasoned = |fields: Value| {
        let reasoning = extended(json!({"type": "reasoning", "summary": []}), fields);
        asked(json!([
            {"role": "user", "content": "One?"},
            reasoning,
            {"type": "message", "role": "assistant", "content": "Two."},
        ]))
    };
    let call = |id: &str, name: &str, arguments: &str, result: Value| {
        json!({"input": [
            {"role": "user", "content": "One?"},
            {"type": "function_call", "call_id": id, "name": name, "arguments": arguments},
            {"type": "function_call_output", "call_id": id, "output": result},
        ]})
    };
    let called = || call("call_1", "tool_1", "{}", json!("Done."));
    let with = |marker: Value| {
        let part = extended(json!({"type": "input_text", "text": "Done."}), marker);
        call("call_1", "tool_1", "{}", json!([part]))
    };
    let image = json!([
        {"type": "input_text", "text": "Done."},
        {"type": "input_image", "image_url": format!("data:image/png;base64,{PROBE_BASE64}")},
    ]);
    vec![
        row("`instructions`", json!({"instructions": PROBE})),
        row("`input`: a string", json!({"input": PROBE})),
        row("message of `system`", message("system")),
        row("message of `developer`", message("developer")),
        row("message of `user`", message("user")),
        row_on(
            "message of `assistant`: `output_text`",
            plain(),
            answer(json!({}), json!({"type": "output_text", "text": PROBE})),
        ),
        row_on(
            "message of `assistant`: `refusal`",
            plain(),
            answer(json!({}), json!({"type": "refusal", "refusal": PROBE})),
        ),
        row_on(
            "`annotations` of `output_text`",
            plain(),
            answer(
                json!({}),
                json!({"type": "output_text", "text": "Two.", "annotations": [{"type": "url_citation"}]}),
            ),
        ),
        row_on(
            "`logprobs` of `output_text`",
            plain(),
            answer(
                json!({}),
                json!({"type": "output_text", "text": "Two.", "logprobs": [{"token": "T"}]}),
            ),
        ),
        row_on(
            "`phase` of a message",
            plain(),
            answer(json!({"phase": "commentary"}), said()),
        ),
        row_on(
            "`id` of an item",
            plain(),
            answer(json!({"id": "msg_1"}), said()),
        ),
        row_on(
            "`status` of an item",
            plain(),
            answer(json!({"status": "incomplete"}), said()),
        ),
        row_on(
            "`reasoning`: its summary",
            reasoned(json!({})),
            reasoned(json!({"summary": [{"type": "summary_text", "text": PROBE}]})),
        ),
        row_on(
            "`reasoning`: its content",
            reasoned(json!({})),
            reasoned(json!({"content": [{"type": "reasoning_text", "text": PROBE}]})),
        ),
        row_on(
            "`reasoning`: `encrypted_content`",
            reasoned(json!({})),
            reasoned(json!({"encrypted_content": PROBE})),
        ),
        row_on(
            "`function_call`: `call_id`",
            called(),
            call(PROBE, "tool_1", "{}", json!("Done.")),
        ),
        row_on(
            "`function_call`: the name",
            called(),
            call("call_1", PROBE, "{}", json!("Done.")),
        ),
        row_on(
            "`function_call`: the arguments",
            called(),
            call("call_1", "tool_1", "{\"a\":\"PROBE\"}", json!("Done.")),
        ),
        row_on(
            "`function_call_output`: a string",
            called(),
            call("call_1", "tool_1", "{}", json!(PROBE)),
        ),
        row_on(
            "`function_call_output`: a text part",
            called(),
            call(
                "call_1",
                "tool_1",
                "{}",
                json!([{"type": "input_text", "text": PROBE}]),
            ),
        ),
        row_on(
            "`function_call_output`: an image",
            called(),
            call("call_1", "tool_1", "{}", image),
        ),
        row_on(
            "`prompt_cache_breakpoint` of a part of it",
            with(json!({})),
            with(json!({"prompt_cache_breakpoint": {"mode": "explicit"}})),
        ),
        row(
            "`item_reference`",
            asked(json!([{"type": "item_reference", "id": "msg_1"}])),
        ),
        row(
            "items of tools that OpenAI runs",
            asked(json!([{"type": "web_search_call", "id": "ws_1", "status": "completed"}])),
        ),
        row(
            "an item that is not known",
            asked(json!([{"type": "something_new"}])),
        ),
    ]
}

fn parts() -> Vec<Row> {
    let part = |part: Value| json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello."}, part]}]});
    let image = |fields: Value| {
        let image = extended(
            json!({"type": "input_image", "image_url": format!("data:image/png;base64,{PROBE_BASE64}")}),
            fields,
        );
        part(image)
    };
    vec![
        row(
            "part `input_text`",
            part(json!({"type": "input_text", "text": PROBE})),
        ),
        row("part `input_image`: a `data:` URL", image(json!({}))),
        row(
            "part `input_image`: an `https:` URL",
            image(json!({"image_url": "https://example.org/PROBE.png"})),
        ),
        row_on(
            "an image's `detail`",
            image(json!({})),
            image(json!({"detail": "high"})),
        ),
        row(
            "part `input_image`: `file_id`",
            part(json!({"type": "input_image", "file_id": "file-1"})),
        ),
        row(
            "part `input_file`: `file_data`",
            part(json!({"type": "input_file", "file_data": PROBE_BASE64})),
        ),
        row(
            "part `input_file`: `file_url`",
            part(json!({"type": "input_file", "file_url": "https://example.org/PROBE.pdf"})),
        ),
        row(
            "part `input_file`: `filename`",
            part(json!({"type": "input_file", "file_data": "AA==", "filename": "PROBE.pdf"})),
        ),
        row(
            "part `input_file`: `file_id`",
            part(json!({"type": "input_file", "file_id": "file-1"})),
        ),
        row(
            "part `input_audio`",
            part(
                json!({"type": "input_audio", "input_audio": {"data": PROBE_BASE64, "format": "wav"}}),
            ),
        ),
        row(
            "part `input_audio`: `audio_url` (Ark)",
            part(json!({"type": "input_audio", "audio_url": "https://example.org/PROBE.mp3"})),
        ),
        row(
            "part `input_video` (Ark)",
            part(json!({"type": "input_video", "video_url": "https://example.org/PROBE.mp4"})),
        ),
        row_on(
            "`prompt_cache_breakpoint` of a part",
            part(json!({"type": "input_text", "text": "And?"})),
            part(
                json!({"type": "input_text", "text": "And?", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}),
            ),
        ),
    ]
}

fn others() -> Vec<Row> {
    vec![
        row("`user`", json!({"user": PROBE})),
        row("`safety_identifier`", json!({"safety_identifier": PROBE})),
        row("`service_tier`", json!({"service_tier": "flex"})),
        row("`metadata`", json!({"metadata": {"a": "1"}})),
        row("`prompt_cache_key`", json!({"prompt_cache_key": PROBE})),
        row(
            "`prompt_cache_options`: `mode`, `ttl`",
            json!({"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}}),
        ),
        row_on(
            "`prompt_cache_options` beside a key",
            json!({"prompt_cache_key": "k"}),
            json!({"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}}),
        ),
        row(
            "`prompt_cache_options`: `comparison_response_id`",
            json!({"prompt_cache_options": {"comparison_response_id": "resp_1"}}),
        ),
        row(
            "`prompt_cache_options`: `prewarm`",
            json!({"prompt_cache_options": {"prewarm": true}}),
        ),
        row(
            "`prompt_cache_retention`",
            json!({"prompt_cache_retention": "24h"}),
        ),
        row("`moderation`", json!({"moderation": {"model": "m"}})),
        row("`image`", json!({"image": {"context_compression": true}})),
        row("`top_k`", json!({"top_k": 40})),
        row(
            "a field that the gateway does not know",
            json!({"something_new": PROBE}),
        ),
    ]
}
