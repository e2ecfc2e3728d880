//! Anthropic Messages.

use serde_json::{Value, json};

use super::{Row, extended, row, row_on};
use crate::{PROBE, PROBE_BASE64};

pub(crate) fn base() -> Value {
    json!({
        "model": "m",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello."}]}],
    })
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = fields();
    rows.extend(tools());
    rows.extend(blocks());
    rows.extend(answers());
    rows.extend(results());
    rows
}

fn fields() -> Vec<Row> {
    let format = || json!({"type": "json_schema", "schema": {"type": "object"}});
    vec![
        row("`model`", json!({"model": "m-2"})),
        row("`max_tokens`", json!({"max_tokens": 200})),
        row("`temperature`", json!({"temperature": 0.5})),
        row("`top_p`", json!({"top_p": 0.5})),
        row("`top_k`", json!({"top_k": 40})),
        row("`stop_sequences`", json!({"stop_sequences": ["###"]})),
        row("`stream`", json!({"stream": true})),
        row(
            "`thinking`: `enabled`, `budget_tokens`",
            json!({"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        ),
        row(
            "`thinking`: `adaptive`",
            json!({"thinking": {"type": "adaptive"}}),
        ),
        row(
            "`thinking`: `disabled`",
            json!({"thinking": {"type": "disabled"}}),
        ),
        row_on(
            "`thinking`: `display`",
            json!({"thinking": {"type": "adaptive"}}),
            json!({"thinking": {"type": "adaptive", "display": "omitted"}}),
        ),
        row(
            "`output_config.effort`",
            json!({"output_config": {"effort": "low"}}),
        ),
        row(
            "`output_config.format`",
            json!({"output_config": {"format": format()}}),
        ),
        row(
            "`output_config.task_budget`",
            json!({"output_config": {"task_budget": {"type": "tokens", "total": 20000}}}),
        ),
        row("`output_format`", json!({"output_format": format()})),
        row(
            "`metadata.user_id`",
            json!({"metadata": {"user_id": PROBE}}),
        ),
        row("`service_tier`", json!({"service_tier": "auto"})),
        row("`speed`", json!({"speed": "fast"})),
        row("`inference_geo`", json!({"inference_geo": "us"})),
        row("`container`", json!({"container": "container_1"})),
        row(
            "`context_management`",
            json!({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}),
        ),
        row(
            "`mcp_servers`",
            json!({"mcp_servers": [{"type": "url", "url": "https://example.org", "name": "a"}]}),
        ),
        row(
            "`cache_control`",
            json!({"cache_control": {"type": "ephemeral", "ttl": "1h"}}),
        ),
        row(
            "`diagnostics`",
            json!({"diagnostics": {"previous_message_id": null}}),
        ),
        row(
            "`context_id`",
            json!({"context_id": "ctx-20261122120000-abcdefghjkmnpqrstvwxyz2345"}),
        ),
        row("`system`: a string", json!({"system": PROBE})),
        row(
            "`system`: blocks",
            json!({"system": [{"type": "text", "text": PROBE}]}),
        ),
        row_on(
            "`cache_control` of a block of `system`",
            json!({"system": [{"type": "text", "text": "Be brief."}]}),
            json!({"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}),
        ),
        row(
            "a field that the gateway does not know",
            json!({"something_new": PROBE}),
        ),
    ]
}

fn tools() -> Vec<Row> {
    let tool = |fields: Value| {
        let tool = extended(json!({"name": "tool_1"}), fields);
        json!({"tools": [tool]})
    };
    let bare = || tool(json!({}));
    let choice = |choice: Value| json!({"tool_choice": choice});
    let examples = json!({"input_examples": [{"a": PROBE}]});
    let server = |kind: &str| json!({"tools": [{"type": kind, "name": "web_search"}]});
    vec![
        row(
            "`tools`: of the client",
            tool(
                json!({"type": "custom", "description": "What it does.", "input_schema": {"type": "object"}}),
            ),
        ),
        row_on(
            "a tool's `description`",
            bare(),
            tool(json!({"description": PROBE})),
        ),
        row_on(
            "a tool's `input_schema`",
            bare(),
            tool(
                json!({"input_schema": {"type": "object", "description": PROBE, "properties": {"a": {"type": "string"}}}}),
            ),
        ),
        row_on("a tool's `strict`", bare(), tool(json!({"strict": true}))),
        row_on(
            "a tool's `cache_control`",
            bare(),
            tool(json!({"cache_control": {"type": "ephemeral", "ttl": "1h"}})),
        ),
        row_on("a tool's `input_examples`", bare(), tool(examples)),
        row_on(
            "a tool's `defer_loading`",
            bare(),
            tool(json!({"defer_loading": true})),
        ),
        row_on(
            "a tool's `allowed_callers`",
            bare(),
            tool(json!({"allowed_callers": ["direct"]})),
        ),
        row_on(
            "a tool's `eager_input_streaming`",
            bare(),
            tool(json!({"eager_input_streaming": true})),
        ),
        row(
            "`tools`: that Anthropic runs or defines",
            server("web_search_20260209"),
        ),
        row_on(
            "`tool_choice`: `auto`",
            bare(),
            choice(json!({"type": "auto"})),
        ),
        row_on(
            "`tool_choice`: `any`",
            bare(),
            choice(json!({"type": "any"})),
        ),
        row_on(
            "`tool_choice`: `none`",
            bare(),
            choice(json!({"type": "none"})),
        ),
        row_on(
            "`tool_choice`: `tool`",
            bare(),
            choice(json!({"type": "tool", "name": "tool_1"})),
        ),
        row_on(
            "`tool_choice`: `disable_parallel_tool_use`",
            json!({"tools": [{"name": "tool_1"}], "tool_choice": {"type": "any"}}),
            choice(json!({"type": "any", "disable_parallel_tool_use": true})),
        ),
    ]
}

fn user(block: Value) -> Value {
    json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello."}, block]}]})
}

fn blocks() -> Vec<Row> {
    let base64 = |media_type: &str| json!({"type": "base64", "media_type": media_type, "data": PROBE_BASE64});
    let document = |source: Value, fields: Value| {
        let block = extended(json!({"type": "document", "source": source}), fields);
        user(block)
    };
    let pdf = || json!({"type": "base64", "media_type": "application/pdf", "data": "AA=="});
    let text = |text: &str| json!({"type": "text", "media_type": "text/plain", "data": text});
    vec![
        row(
            "message of `system`",
            json!({"messages": [{"role": "user", "content": "Hello."}, {"role": "system", "content": PROBE}]}),
        ),
        row(
            "message of `user`: a string",
            json!({"messages": [{"role": "user", "content": PROBE}]}),
        ),
        row("block `text`", user(json!({"type": "text", "text": PROBE}))),
        row_on(
            "`cache_control` of a block",
            user(json!({"type": "text", "text": "And?"})),
            user(json!({"type": "text", "text": "And?", "cache_control": {"type": "ephemeral"}})),
        ),
        row(
            "block `image`: `base64`",
            user(json!({"type": "image", "source": base64("image/png")})),
        ),
        row(
            "block `image`: `url`",
            user(
                json!({"type": "image", "source": {"type": "url", "url": "https://example.org/PROBE.png"}}),
            ),
        ),
        row(
            "block `image`: `file`",
            user(json!({"type": "image", "source": {"type": "file", "file_id": "file_1"}})),
        ),
        row(
            "block `document`: `base64`",
            document(base64("application/pdf"), json!({})),
        ),
        row(
            "block `document`: `url`",
            document(
                json!({"type": "url", "url": "https://example.org/PROBE.pdf"}),
                json!({}),
            ),
        ),
        row("block `document`: `text`", document(text(PROBE), json!({}))),
        row(
            "block `document`: `content`",
            document(
                json!({"type": "content", "content": [{"type": "text", "text": PROBE}]}),
                json!({}),
            ),
        ),
        row(
            "block `document`: `file`",
            document(json!({"type": "file", "file_id": "file_1"}), json!({})),
        ),
        row_on(
            "a document's `title`, of text",
            document(text("All."), json!({})),
            document(text("All."), json!({"title": PROBE})),
        ),
        row_on(
            "a document's `title`, of a file",
            document(pdf(), json!({})),
            document(pdf(), json!({"title": PROBE})),
        ),
        row_on(
            "a document's `context`",
            document(text("All."), json!({})),
            document(text("All."), json!({"context": PROBE})),
        ),
        row_on(
            "a document's `citations`",
            document(text("All."), json!({})),
            document(text("All."), json!({"citations": {"enabled": true}})),
        ),
        row(
            "block `search_result`",
            user(
                json!({"type": "search_result", "source": "https://example.org", "title": "A", "content": []}),
            ),
        ),
        row(
            "block `container_upload`",
            user(json!({"type": "container_upload", "file_id": "file_1"})),
        ),
        row(
            "a block that is not known",
            user(json!({"type": "something_new"})),
        ),
    ]
}

fn answers() -> Vec<Row> {
    let answer = |block: Value| {
        json!({"messages": [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": [block, {"type": "text", "text": "Two."}]},
            {"role": "user", "content": "And?"},
        ]})
    };
    let said = |text: &str| answer(json!({"type": "text", "text": text}));
    let thought = |thinking: &str, signature: &str| {
        answer(json!({"type": "thinking", "thinking": thinking, "signature": signature}))
    };
    vec![
        row_on("`text` of an answer", said("So:"), said(PROBE)),
        row_on(
            "`citations` of an answer",
            said("So:"),
            answer(
                json!({"type": "text", "text": "So:", "citations": [{"type": "char_location"}]}),
            ),
        ),
        row_on(
            "`thinking` of an answer",
            thought("", ""),
            thought(PROBE, ""),
        ),
        row_on(
            "a thinking block's `signature`",
            thought("Hm.", ""),
            thought("Hm.", PROBE_BASE64),
        ),
        row_on(
            "a `signature` that another provider made",
            thought("Hm.", ""),
            thought("Hm.", "gemini:UFJPQkU="),
        ),
        row_on(
            "`redacted_thinking` of an answer",
            said("So:"),
            json!({"messages": [
                {"role": "user", "content": "One?"},
                {"role": "assistant", "content": [
                    {"type": "redacted_thinking", "data": PROBE_BASE64},
                    {"type": "text", "text": "So:"},
                    {"type": "text", "text": "Two."},
                ]},
                {"role": "user", "content": "And?"},
            ]}),
        ),
        row(
            "`server_tool_use` and results of what Anthropic runs",
            answer(
                json!({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}),
            ),
        ),
    ]
}

fn results() -> Vec<Row> {
    let call = |id: &str, name: &str, input: Value, result: Value| {
        let result_block = extended(json!({"type": "tool_result", "tool_use_id": id}), result);
        json!({"messages": [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": name, "input": input}]},
            {"role": "user", "content": [result_block]},
        ]})
    };
    let done = || json!({"content": "Done."});
    let called = || call("toolu_1", "tool_1", json!({}), done());
    let result = |block: Value| {
        let content = json!([{"type": "text", "text": "Done."}, block]);
        call("toolu_1", "tool_1", json!({}), json!({"content": content}))
    };
    let mut caller = called();
    caller["messages"][1]["content"][0]["caller"] = json!({"type": "direct"});
    vec![
        row_on(
            "`tool_use`: the id, with `tool_use_id`",
            called(),
            call(PROBE, "tool_1", json!({}), done()),
        ),
        row_on(
            "`tool_use`: the name",
            called(),
            call("toolu_1", PROBE, json!({}), done()),
        ),
        row_on(
            "`tool_use`: the input",
            called(),
            call("toolu_1", "tool_1", json!({"a": PROBE}), done()),
        ),
        row_on("`tool_use`: `caller`", called(), caller),
        row_on(
            "`tool_result`: a string",
            called(),
            call("toolu_1", "tool_1", json!({}), json!({"content": PROBE})),
        ),
        row_on(
            "`tool_result`: `text`",
            called(),
            result(json!({"type": "text", "text": PROBE})),
        ),
        row_on(
            "`tool_result`: `image` by URL",
            called(),
            result(
                json!({"type": "image", "source": {"type": "url", "url": "https://example.org/PROBE.png"}}),
            ),
        ),
        row_on(
            "`tool_result`: `image`",
            called(),
            result(
                json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PROBE_BASE64}}),
            ),
        ),
        row_on(
            "`tool_result`: `document`",
            called(),
            result(
                json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PROBE_BASE64}}),
            ),
        ),
        row_on(
            "`tool_result`: other blocks",
            called(),
            result(
                json!({"type": "search_result", "source": "https://example.org", "title": "A", "content": []}),
            ),
        ),
        row_on(
            "`tool_result`: `is_error`",
            called(),
            call(
                "toolu_1",
                "tool_1",
                json!({}),
                json!({"content": "Done.", "is_error": true}),
            ),
        ),
    ]
}
