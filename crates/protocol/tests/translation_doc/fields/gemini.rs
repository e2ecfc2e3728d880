//! Gemini `generateContent`.

use serde_json::{Value, json};

use super::{Row, extended, row, row_on};
use crate::{PROBE, PROBE_BASE64};

pub(crate) fn base() -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": "Hello."}]}]})
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = generation();
    rows.extend(tools());
    rows.extend(fields());
    rows.extend(parts());
    rows.extend(answers());
    rows.extend(results());
    rows
}

fn config(config: Value) -> Value {
    json!({"generationConfig": config})
}

fn generation() -> Vec<Row> {
    let schema = || json!({"responseMimeType": "application/json"});
    let with = |fields: Value| {
        let all = extended(schema(), fields);
        config(all)
    };
    let thinking = |fields: Value| config(json!({"thinkingConfig": fields}));
    vec![
        row("`temperature`", config(json!({"temperature": 0.5}))),
        row("`temperature` above 1", config(json!({"temperature": 1.5}))),
        row("`topP`", config(json!({"topP": 0.5}))),
        row("`topK`", config(json!({"topK": 40}))),
        row("`presencePenalty`", config(json!({"presencePenalty": 0.5}))),
        row(
            "`frequencyPenalty`",
            config(json!({"frequencyPenalty": 0.5})),
        ),
        row("`seed`", config(json!({"seed": 7}))),
        row("`maxOutputTokens`", config(json!({"maxOutputTokens": 200}))),
        row("`stopSequences`", config(json!({"stopSequences": ["###"]}))),
        row(
            "`candidateCount` above 1",
            config(json!({"candidateCount": 2})),
        ),
        row(
            "`responseLogprobs`",
            config(json!({"responseLogprobs": true})),
        ),
        row_on(
            "`logprobs`",
            config(json!({"responseLogprobs": true})),
            config(json!({"responseLogprobs": true, "logprobs": 3})),
        ),
        row("`responseMimeType`: `application/json`", config(schema())),
        row(
            "`responseMimeType`: `text/plain`",
            config(json!({"responseMimeType": "text/plain"})),
        ),
        row(
            "`responseMimeType`: `text/x.enum`",
            config(
                json!({"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["a"]}}),
            ),
        ),
        row(
            "`responseSchema`",
            with(json!({"responseSchema": {"type": "OBJECT"}})),
        ),
        row(
            "`responseJsonSchema`",
            with(json!({"responseJsonSchema": {"type": "object"}})),
        ),
        row(
            "`responseModalities`: `TEXT`",
            config(json!({"responseModalities": ["TEXT"]})),
        ),
        row(
            "`responseModalities`: others",
            config(json!({"responseModalities": ["IMAGE"]})),
        ),
        row(
            "`speechConfig`",
            config(json!({"speechConfig": {"voiceConfig": {}}})),
        ),
        row(
            "`imageConfig`",
            config(json!({"imageConfig": {"aspectRatio": "1:1"}})),
        ),
        row(
            "`thinkingConfig.thinkingBudget`",
            thinking(json!({"thinkingBudget": 2048})),
        ),
        row(
            "`thinkingConfig.thinkingBudget`: 0",
            thinking(json!({"thinkingBudget": 0})),
        ),
        row(
            "`thinkingConfig.thinkingBudget`: -1",
            thinking(json!({"thinkingBudget": -1})),
        ),
        row(
            "`thinkingConfig.thinkingLevel`",
            thinking(json!({"thinkingLevel": "LOW"})),
        ),
        row(
            "`thinkingConfig.includeThoughts`",
            thinking(json!({"includeThoughts": true})),
        ),
        row(
            "`mediaResolution`",
            config(json!({"mediaResolution": "MEDIA_RESOLUTION_LOW"})),
        ),
        row(
            "`enableEnhancedCivicAnswers`",
            config(json!({"enableEnhancedCivicAnswers": true})),
        ),
        row("`audioTimestamp`", config(json!({"audioTimestamp": true}))),
        row(
            "`routingConfig`, `modelSelectionConfig`",
            config(json!({"routingConfig": {"autoMode": {}}, "modelSelectionConfig": {}})),
        ),
    ]
}

fn tools() -> Vec<Row> {
    let function = |fields: Value| {
        let function = extended(json!({"name": "tool_1"}), fields);
        json!({"tools": [{"functionDeclarations": [function]}]})
    };
    let bare = || function(json!({}));
    let two =
        || json!({"tools": [{"functionDeclarations": [{"name": "tool_1"}, {"name": "tool_2"}]}]});
    let mode = |fields: Value| json!({"toolConfig": {"functionCallingConfig": fields}});
    vec![
        row(
            "`functionDeclarations`",
            function(json!({"description": "What it does.", "parameters": {"type": "OBJECT"}})),
        ),
        row_on(
            "a function's `description`",
            bare(),
            function(json!({"description": PROBE})),
        ),
        row_on(
            "a function's `parameters`",
            bare(),
            function(
                json!({"parameters": {"type": "OBJECT", "description": PROBE, "properties": {"a": {"type": "STRING"}}}}),
            ),
        ),
        row_on(
            "a function's `parametersJsonSchema`",
            bare(),
            function(
                json!({"parametersJsonSchema": {"type": "object", "description": PROBE, "properties": {"a": {"type": "string"}}}}),
            ),
        ),
        row_on(
            "a function's `response`, `responseJsonSchema`",
            bare(),
            function(
                json!({"response": {"type": "STRING"}, "responseJsonSchema": {"type": "string"}}),
            ),
        ),
        row_on(
            "a function's `behavior`",
            bare(),
            function(json!({"behavior": "BLOCKING"})),
        ),
        row(
            "`googleSearch` and other tools of Google",
            json!({"tools": [{"googleSearch": {}, "codeExecution": {}}]}),
        ),
        row(
            "a tool that is not known",
            json!({"tools": [{"telepathy": {}}]}),
        ),
        row_on("`mode`: `AUTO`", bare(), mode(json!({"mode": "AUTO"}))),
        row_on("`mode`: `ANY`", bare(), mode(json!({"mode": "ANY"}))),
        row_on("`mode`: `NONE`", bare(), mode(json!({"mode": "NONE"}))),
        row_on(
            "`mode`: `VALIDATED`",
            bare(),
            mode(json!({"mode": "VALIDATED"})),
        ),
        row_on(
            "`mode`: `ANY`, one of `allowedFunctionNames`",
            two(),
            mode(json!({"mode": "ANY", "allowedFunctionNames": ["tool_1"]})),
        ),
        row_on(
            "`mode`: `ANY`, several of `allowedFunctionNames`",
            json!({"tools": [{"functionDeclarations": [{"name": "tool_1"}, {"name": "tool_2"}, {"name": "tool_3"}]}]}),
            mode(json!({"mode": "ANY", "allowedFunctionNames": ["tool_1", "tool_2"]})),
        ),
        row(
            "`toolConfig.retrievalConfig`",
            json!({"toolConfig": {"retrievalConfig": {"languageCode": "de"}}}),
        ),
    ]
}

fn fields() -> Vec<Row> {
    vec![
        row(
            "`systemInstruction`",
            json!({"systemInstruction": {"parts": [{"text": PROBE}]}}),
        ),
        row(
            "`systemInstruction`: a part",
            json!({"systemInstruction": {"text": PROBE}}),
        ),
        row_on(
            "`systemInstruction.role`",
            json!({"systemInstruction": {"parts": [{"text": "Be brief."}]}}),
            json!({"systemInstruction": {"role": "user", "parts": [{"text": "Be brief."}]}}),
        ),
        row(
            "`systemInstruction`: a string",
            json!({"systemInstruction": PROBE}),
        ),
        row(
            "`cachedContent`",
            json!({"cachedContent": "cachedContents/ctx-20261122193000-abcdefghijklmnop"}),
        ),
        row(
            "`safetySettings`",
            json!({"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]}),
        ),
        row("`labels`", json!({"labels": {"team": PROBE}})),
        row("`serviceTier`", json!({"serviceTier": "flex"})),
        row("`store`", json!({"store": true})),
        row("`model`", json!({"model": "models/other"})),
        row(
            "a field that the gateway does not know",
            json!({"somethingNew": PROBE}),
        ),
    ]
}

fn user(part: Value) -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": "Hello."}, part]}]})
}

fn parts() -> Vec<Row> {
    let inline = |media_type: &str| {
        user(json!({"inlineData": {"mimeType": media_type, "data": PROBE_BASE64}}))
    };
    let named = |fields: Value| {
        let data = extended(
            json!({"mimeType": "application/pdf", "data": "AA=="}),
            fields,
        );
        user(json!({"inlineData": data}))
    };
    let file = |uri: &str| user(json!({"fileData": {"mimeType": "image/png", "fileUri": uri}}));
    let said = |remark: &str| {
        user(
            json!({"inlineData": {"mimeType": "video/mp4", "data": "AA=="}, remark: {"fps": 1, "level": "MEDIA_RESOLUTION_LOW"}}),
        )
    };
    let video = || user(json!({"inlineData": {"mimeType": "video/mp4", "data": "AA=="}}));
    vec![
        row("`text` of a user", user(json!({"text": PROBE}))),
        row("`inlineData`: an image", inline("image/png")),
        row("`inlineData`: a document", inline("application/pdf")),
        row("`inlineData`: sound or video", inline("audio/wav")),
        row_on(
            "`inlineData`: `displayName`",
            named(json!({})),
            named(json!({"displayName": PROBE})),
        ),
        row(
            "`fileData`: an `https:` URL of an image",
            file("https://example.org/PROBE.png"),
        ),
        row(
            "`fileData`: an `https:` URL of another file",
            user(
                json!({"fileData": {"mimeType": "application/pdf", "fileUri": "https://example.org/PROBE.pdf", "displayName": "a"}}),
            ),
        ),
        row(
            "`fileData`: `gs:`, files at Google, YouTube",
            file("gs://bucket/a.png"),
        ),
        row_on("`videoMetadata`", video(), said("videoMetadata")),
        row_on(
            "`mediaResolution` of a part",
            video(),
            said("mediaResolution"),
        ),
        row_on("`partMetadata`", video(), said("partMetadata")),
        row(
            "`executableCode`",
            user(json!({"executableCode": {"language": "PYTHON", "code": "1"}})),
        ),
        row(
            "`codeExecutionResult`",
            user(json!({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}})),
        ),
        row("a part that is not known", user(json!({"smell": {}}))),
    ]
}

fn answers() -> Vec<Row> {
    let answer = |parts: Value| {
        json!({"contents": [
            {"role": "user", "parts": [{"text": "One?"}]},
            {"role": "model", "parts": parts},
            {"role": "user", "parts": [{"text": "And?"}]},
        ]})
    };
    let said = || answer(json!([{"text": "Two."}]));
    let thought = |fields: Value| {
        let thought = extended(json!({"text": "Hm.", "thought": true}), fields);
        answer(json!([thought, {"text": "Two."}]))
    };
    vec![
        row_on(
            "`text` of the model",
            said(),
            answer(json!([{"text": PROBE}])),
        ),
        row_on(
            "`thought` of the model",
            thought(json!({})),
            thought(json!({"text": PROBE})),
        ),
        row_on(
            "a thought's `thoughtSignature`",
            thought(json!({})),
            thought(json!({"thoughtSignature": PROBE_BASE64})),
        ),
        row_on(
            "a `thoughtSignature` that another provider made",
            thought(json!({})),
            thought(json!({"thoughtSignature": "anthropic:UFJPQkU="})),
        ),
        row_on(
            "`inlineData` of the model",
            said(),
            answer(
                json!([{"text": "Two."}, {"inlineData": {"mimeType": "image/png", "data": PROBE_BASE64}}]),
            ),
        ),
    ]
}

fn results() -> Vec<Row> {
    let turn = |call: Value, result: Value| {
        json!({"contents": [
            {"role": "user", "parts": [{"text": "One?"}]},
            {"role": "model", "parts": [extended(json!({"functionCall": {"name": "tool_1"}}), call)]},
            {"role": "user", "parts": [{"functionResponse": extended(json!({"name": "tool_1", "response": {"result": "Done."}}), result)}]},
        ]})
    };
    let called = || turn(json!({}), json!({}));
    let with_id = |id: &str| {
        turn(
            json!({"functionCall": {"id": id, "name": "tool_1"}}),
            json!({"id": id}),
        )
    };
    let part = |part: Value| turn(json!({}), json!({"parts": [part]}));
    vec![
        row_on(
            "`functionCall`, `functionResponse`: the id",
            with_id("call_1"),
            with_id(PROBE),
        ),
        row_on(
            "`functionCall`, `functionResponse`: the name",
            called(),
            turn(
                json!({"functionCall": {"name": PROBE}}),
                json!({"name": PROBE}),
            ),
        ),
        row_on(
            "`functionCall`: `args`",
            called(),
            turn(
                json!({"functionCall": {"name": "tool_1", "args": {"a": PROBE}}}),
                json!({}),
            ),
        ),
        row_on(
            "`functionCall`: `thoughtSignature`",
            called(),
            turn(json!({"thoughtSignature": PROBE_BASE64}), json!({})),
        ),
        row_on(
            "`functionResponse`: a result of text",
            called(),
            turn(json!({}), json!({"response": {"result": PROBE}})),
        ),
        row_on(
            "`functionResponse`: any other result",
            called(),
            turn(json!({}), json!({"response": {"a": PROBE}})),
        ),
        row_on(
            "`functionResponse.parts`: an image",
            called(),
            part(json!({"inlineData": {"mimeType": "image/png", "data": PROBE_BASE64}})),
        ),
        row_on(
            "`functionResponse.parts`: `displayName`",
            part(json!({"inlineData": {"mimeType": "application/pdf", "data": "AA=="}})),
            part(
                json!({"inlineData": {"mimeType": "application/pdf", "data": "AA==", "displayName": PROBE}}),
            ),
        ),
        row_on(
            "`functionResponse.parts`: another file",
            called(),
            part(json!({"inlineData": {"mimeType": "application/pdf", "data": PROBE_BASE64}})),
        ),
        row_on(
            "`functionResponse.parts`: files at Google",
            called(),
            part(json!({"fileData": {"fileUri": "gs://bucket/a.png"}})),
        ),
        row_on(
            "`functionResponse`: `scheduling`, `willContinue`",
            called(),
            turn(
                json!({}),
                json!({"scheduling": "SILENT", "willContinue": true}),
            ),
        ),
    ]
}
