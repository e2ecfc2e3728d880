"""The Ark Python SDK, unmodified, on both paths it is pointed at."""

import time
from datetime import timedelta

import httpx
import pytest
from volcenginesdkarkruntime import Ark, _exceptions as ark_sdk

from emulators import model_of
from gateway import DOUBAO, GEMINI, KEY, NATIVE
from wire import NEVER_END, Wire, system, user

MESSAGES = [system("You are Lingling, a friendly guide through the museum of clocks."), user("Hello")]


def typed(usage) -> dict:
    """The SDK hands out a plain dict when the counts are not what its types say."""
    assert type(usage).__name__ == "CompletionUsage", usage
    assert type(usage.prompt_tokens_details).__name__ == "PromptTokensDetails"
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    return {
        "prompt": usage.prompt_tokens,
        "completion": usage.completion_tokens,
        "cached": usage.prompt_tokens_details.cached_tokens,
    }


def test_a_session_without_ttl_lives_for_a_day(ark):
    context = ark.context.create(model=DOUBAO, messages=MESSAGES)
    assert context.id.startswith("ctx-")
    assert context.model == DOUBAO
    assert context.mode == "session"
    assert context.ttl == 86400
    assert context.truncation_strategy.type == "rolling_tokens"
    assert context.usage["total_tokens"] == context.usage["prompt_tokens"] > 0
    assert context.usage["prompt_tokens_details"]["cached_tokens"] >= 0


def test_a_session_with_a_timedelta_and_rolling_tokens(ark):
    context = ark.context.create(
        model=DOUBAO,
        messages=MESSAGES,
        mode="session",
        ttl=timedelta(hours=2),
        truncation_strategy={"type": "rolling_tokens", "rolling_tokens": True},
    )
    assert context.ttl == 7200
    assert context.truncation_strategy.to_dict() == {"type": "rolling_tokens", "rolling_tokens": True}


def test_a_session_with_last_history_tokens(ark):
    context = ark.context.create(
        model=DOUBAO,
        messages=MESSAGES,
        ttl=3600,
        truncation_strategy={"type": "last_history_tokens", "last_history_tokens": 512},
    )
    assert context.truncation_strategy.to_dict() == {"type": "last_history_tokens", "last_history_tokens": 512}


def test_a_common_prefix_is_shared_and_stays_as_it_is(ark, wire):
    context = ark.context.create(model=DOUBAO, messages=MESSAGES, mode="common_prefix", ttl=3600)
    assert context.mode == "common_prefix"
    assert context.truncation_strategy is None
    for _ in range(2):
        answer = ark.context.completions.create(
            context_id=context.id, model=DOUBAO, messages=[user("Where is the oldest clock?")], max_tokens=8
        )
        assert typed(answer.usage)["cached"] == context.usage["prompt_tokens"]
    assert wire.context(context.id)["turns"] == 0


def test_chats_of_a_session_remember(ark, wire):
    context = ark.context.create(model=DOUBAO, messages=MESSAGES, ttl=3600)
    first = ark.context.completions.create(
        context_id=context.id, model=DOUBAO, messages=[user("Which clock is the oldest?")], max_tokens=8
    )
    assert first.object == "chat.completion"
    assert first.model == DOUBAO
    assert first.choices[0].message.role == "assistant"
    assert first.choices[0].message.content
    assert first.choices[0].finish_reason in ("stop", "length")
    counts = typed(first.usage)
    assert counts["cached"] == context.usage["prompt_tokens"]
    second = typed(
        ark.context.completions.create(
            context_id=context.id, model=DOUBAO, messages=[user("And the newest?")], max_tokens=8
        ).usage
    )
    assert second["cached"] > counts["prompt"]
    assert wire.context(context.id)["turns"] == 2


def test_a_stream_ends_with_typed_usage(ark, wire):
    context = ark.context.create(model=DOUBAO, messages=MESSAGES, ttl=3600)
    stream = ark.context.completions.create(
        context_id=context.id,
        model=DOUBAO,
        messages=[user("Tell me about water clocks.")],
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, reasons, counts = "", [], []
    for chunk in stream:
        assert not counts, "a chunk follows the usage"
        if chunk.usage:
            assert chunk.choices == []
            counts.append(typed(chunk.usage))
            continue
        text += chunk.choices[0].delta.content or ""
        if chunk.choices[0].finish_reason:
            reasons.append(chunk.choices[0].finish_reason)
    assert text
    assert len(reasons) == 1
    assert counts[0]["cached"] == context.usage["prompt_tokens"]
    assert wire.context(context.id)["turns"] == 1


def test_a_stream_without_usage_has_none(ark):
    context = ark.context.create(model=DOUBAO, messages=MESSAGES, ttl=3600)
    stream = ark.context.completions.create(
        context_id=context.id, model=DOUBAO, messages=[user("Hello again")], max_tokens=4, stream=True
    )
    chunks = list(stream)
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1


def test_the_plain_chat_endpoint_works_with_a_context(ark):
    context = ark.context.create(model=DOUBAO, messages=MESSAGES, mode="common_prefix", ttl=3600)
    answer = ark.chat.completions.create(
        model=DOUBAO, messages=[user("Hello")], max_tokens=4, extra_body={"context_id": context.id}
    )
    assert typed(answer.usage)["cached"] == context.usage["prompt_tokens"]


def test_the_sdks_default_mode_is_honoured_on_a_gemini_model(ark, wire):
    context = ark.context.create(model=GEMINI, messages=MESSAGES)
    assert context.mode == "session"
    assert context.ttl == 3600
    assert context.usage["total_tokens"] == 0
    ark.context.completions.create(context_id=context.id, model=GEMINI, messages=[user("Hello")], max_tokens=4)
    assert wire.context(context.id)["turns"] == 1


def test_errors_have_arks_classes_codes_and_fields(ark):
    with pytest.raises(ark_sdk.ArkNotFoundError) as missing:
        ark.context.completions.create(
            context_id="ctx-20260101000000-aaaaaaaaaaaaaaaaaaaaaaaaaa", model=DOUBAO, messages=[user("Hello")]
        )
    assert (missing.value.code, missing.value.param, missing.value.type) == (
        "NotFound.context_id",
        "context_id",
        "NotFound",
    )
    assert all(word in missing.value.message for word in ("context", "not found", "expired"))

    with pytest.raises(ark_sdk.ArkBadRequestError) as too_short:
        ark.context.create(model=DOUBAO, messages=MESSAGES, ttl=300)
    assert (too_short.value.code, too_short.value.param) == ("InvalidParameter", "ttl")

    with pytest.raises(ark_sdk.ArkNotFoundError) as no_model:
        ark.context.create(model="ep-20250101000000-none", messages=MESSAGES)
    assert no_model.value.code == "InvalidEndpointOrModel.NotFound"

    with pytest.raises(ark_sdk.ArkBadRequestError) as misplaced:
        ark.context.create(
            model=DOUBAO,
            messages=MESSAGES,
            mode="common_prefix",
            truncation_strategy={"type": "rolling_tokens", "rolling_tokens": True},
        )
    assert (misplaced.value.code, misplaced.value.param) == ("InvalidParameter", "truncation_strategy")


def test_a_wrong_key_is_an_authentication_error(gateway):
    ark = Ark(base_url=gateway.url + "/api/v3", api_key="hf-somebody-elses-key-0000000000")
    with pytest.raises(ark_sdk.ArkAuthenticationError) as refused:
        ark.context.create(model=DOUBAO, messages=MESSAGES)
    assert refused.value.code == "AuthenticationError"
    ark.close()


def test_the_sdk_waits_for_a_busy_session_by_itself(gateway, wire):
    context_id = wire.session(DOUBAO, ttl=3600)
    refusals = []
    http = httpx.Client(event_hooks={"response": [lambda answer: refusals.append(answer.status_code)]})
    ark = Ark(base_url=gateway.url + "/api/v3", api_key=KEY, http_client=http, max_retries=8)
    with wire.running_turn(context_id, max_tokens=25) as chunks:
        answer = ark.context.completions.create(
            context_id=context_id,
            model=DOUBAO,
            messages=[user("Are you there?")],
            max_tokens=4,
        )
        assert [*chunks][-1]["choices"][0]["finish_reason"] == "length"
    ark.close()
    assert refusals[0] == 403 and refusals[-1] == 200
    assert typed(answer.usage)["cached"] > 0
    assert wire.context(context_id)["turns"] == 2


def test_a_session_that_stays_busy_is_a_permission_error_after_three_attempts(gateway, wire):
    context_id = wire.session(DOUBAO, ttl=3600)
    refusals = []
    http = httpx.Client(event_hooks={"response": [lambda answer: refusals.append(answer.status_code)]})
    ark = Ark(base_url=gateway.url + "/api/v3", api_key=KEY, http_client=http)
    with wire.running_turn(context_id, max_tokens=4000):
        with pytest.raises(ark_sdk.ArkPermissionDeniedError) as busy:
            ark.context.completions.create(context_id=context_id, model=DOUBAO, messages=[user("Are you there?")])
    ark.close()
    assert refusals == [403, 403, 403]
    assert busy.value.code == "OperationDenied.InvalidState"
    assert "InProgress" in busy.value.message


def test_the_path_decides_the_mode_where_the_model_does_not(small_gateway):
    with Wire(small_gateway.url) as wire:
        body = {"model": NATIVE, "messages": [user("Hello")]}
        modes = {path: wire.ok("POST", f"{path}/context/create", json=body) for path in ("/v1", "/api/v3")}
        for created in modes.values():
            wire.ok("DELETE", f"/v1/context/{created['id']}")
    assert {path: created["mode"] for path, created in modes.items()} == {
        "/v1": "common_prefix",
        "/api/v3": "session",
    }
    assert all(created["usage"]["total_tokens"] == created["usage"]["prompt_tokens"] for created in modes.values())


# What the Ark SDK for Go sends: an empty mode, and neither ttl nor truncation strategy.
GO_CREATE = '{"model":"%s","mode":"","messages":[{"role":"system","content":"You are a clerk."}]}' % DOUBAO
GO_CHAT = (
    '{"context_id":"%s","mode":"","model":"' + DOUBAO + '",'
    '"messages":[{"role":"user","content":"Hi"}],"max_tokens":4}'
)

# What the Ark SDK for Python sends when the caller sets nothing: every key it knows.
ALL_NULL = {
    "frequency_penalty": None,
    "function_call": None,
    "logit_bias": None,
    "logprobs": None,
    "max_tokens": None,
    "presence_penalty": None,
    "stop": None,
    "stream": None,
    "stream_options": None,
    "temperature": None,
    "tools": None,
    "top_logprobs": None,
    "top_p": None,
    "repetition_penalty": None,
    "n": None,
    "tool_choice": None,
    "response_format": None,
    "user": None,
}


@pytest.mark.parametrize("path", ["/v1", "/api/v3"])
def test_the_payloads_of_the_go_sdk(wire, path):
    created = wire.ok("POST", f"{path}/context/create", content=GO_CREATE)
    assert (created["mode"], created["ttl"]) == ("session", 86400)
    # A quoted number would break its decoder.
    assert isinstance(created["ttl"], int)
    answer = wire.ok("POST", f"{path}/context/chat/completions", content=GO_CHAT % created["id"])
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == created["usage"]["prompt_tokens"]
    assert wire.context(created["id"])["turns"] == 1


@pytest.mark.parametrize("path", ["/v1/context/chat", "/api/v3/context/chat", "/v1/chat"])
def test_a_chat_with_every_key_null(wire, path):
    context_id = wire.session(DOUBAO, ttl=None, truncation_strategy=None)
    # Without a bound the answer ends when the model wants it to, so it gets one by another name.
    body = {"context_id": context_id, "model": DOUBAO, "messages": [user("Hello")], **ALL_NULL}
    assert len(body) == 21
    answer = wire.ok("POST", f"{path}/completions", json=body | {"max_completion_tokens": 4})
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] <= 4


def test_the_context_endpoint_needs_a_context(wire):
    answer = wire.post("/v1/context/chat/completions", json={"model": DOUBAO, "messages": [user("Hello")]})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "MissingParameter.context_id"


def test_a_forbidden_end_makes_an_answer_as_long_as_asked(ark):
    context = ark.context.create(model=DOUBAO, messages=MESSAGES, mode="common_prefix", ttl=3600)
    answer = ark.context.completions.create(
        context_id=context.id, model=DOUBAO, messages=[user("Hi")], max_tokens=20, logit_bias=NEVER_END
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 20


def respond(ark, asked, **fields):
    return ark.responses.create(
        **{"model": DOUBAO, "input": asked, "max_output_tokens": 8, "temperature": 0, **fields}
    )


def counted(response) -> int:
    """Cached tokens, where the counts are what the SDK's types say."""
    usage = response.usage
    assert type(usage).__name__ == "ResponseUsage", usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    return usage.input_tokens_details.cached_tokens


def text_of_response(response) -> str:
    return "".join(part.text for item in response.output if item.type == "message" for part in item.content)


def test_a_response_lives_as_long_as_it_is_told(ark):
    until = int(time.time()) + 7200
    assert respond(ark, "Which clock is the oldest?", expire_at=until).expire_at == until


def test_a_response_is_kept_and_deleted(ark):
    response = respond(ark, "Which clock is the oldest?", instructions="You are a guide.")
    assert (response.object, response.model) == ("response", DOUBAO)
    assert response.status in ("completed", "incomplete")
    assert text_of_response(response)
    assert counted(response) < response.usage.input_tokens
    assert text_of_response(ark.responses.retrieve(response.id)) == text_of_response(response)
    items = ark.input_items.list(response.id)
    assert [item.role for item in items.data] == ["user"]
    ark.responses.delete(response.id)
    with pytest.raises(ark_sdk.ArkNotFoundError):
        ark.responses.retrieve(response.id)


def test_a_streamed_response_says_the_same(ark):
    question = {"instructions": "You are a guide through the museum of clocks."}
    whole = respond(ark, "Which clock is the oldest?", **question)
    events = list(respond(ark, "Which clock is the oldest?", stream=True, **question))
    assert "".join(
        event.delta for event in events if event.type == "response.output_text.delta"
    ) == text_of_response(whole)
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert events[-1].response.usage.total_tokens == whole.usage.total_tokens


def test_a_session_of_responses_is_cached(ark):
    caching = {"caching": {"type": "enabled"}, "thinking": {"type": "disabled"}}
    first = respond(ark, [*MESSAGES, user("Which clock is the oldest?")], **caching)
    second = respond(ark, [user("And the newest?")], previous_response_id=first.id, **caching)
    assert second.previous_response_id == first.id
    # All of it but what the template puts before an answer.
    assert counted(second) >= first.usage.input_tokens - 8
    assert second.usage.input_tokens > first.usage.total_tokens
    assert text_of_response(second)


def test_a_prefix_of_responses_is_shared(ark, long_text):
    rules = [system(f"These are the rules of a test of prefixes. {long_text[:4000]}")]
    caching, thinking = {"type": "enabled"}, {"type": "disabled"}
    prefix = respond(ark, rules, caching=caching | {"prefix": True}, thinking=thinking)
    for question in ("Where is the oldest clock?", "Where is the newest?"):
        asked = {"previous_response_id": prefix.id, "caching": caching, "thinking": thinking}
        answer = respond(ark, [user(question)], **asked)
        assert counted(answer) >= prefix.usage.input_tokens - 8
        assert text_of_response(answer)


def test_a_forced_tool_of_a_response(ark):
    tool = {
        "type": "function",
        "name": "ring",
        "parameters": {"type": "object", "properties": {"times": {"type": "integer", "minimum": 1, "maximum": 9}}},
    }
    forced = {"tools": [tool], "tool_choice": {"type": "function", "name": "ring"}, "max_output_tokens": 100}
    response = respond(ark, "Ring the bell.", **forced)
    (call,) = [item for item in response.output if item.type == "function_call"]
    assert call.name == "ring"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "It rang."}
    assert text_of_response(respond(ark, [result], previous_response_id=response.id))


def test_errors_of_responses_have_arks_classes(ark):
    with pytest.raises(ark_sdk.ArkNotFoundError):
        respond(ark, "Hello", model="ep-20250101000000-none")
    with pytest.raises(ark_sdk.ArkBadRequestError) as bad:
        respond(ark, "Hello", temperature=9)
    assert bad.value.param == "temperature"
    with pytest.raises((ark_sdk.ArkBadRequestError, ark_sdk.ArkNotFoundError)) as gone:
        respond(ark, "Hello", previous_response_id="resp_none")
    assert gone.value.param == "previous_response_id"


def test_responses_by_way_of_ark_itself(mixed_gateway, long_text):
    """An emulated Ark behind the gateway, which refuses fields that it does not know."""
    caching = {"caching": {"type": "enabled"}, "thinking": {"type": "disabled"}}
    ark = Ark(base_url=mixed_gateway.url + "/api/v3", api_key=KEY)
    rules = system(f"These are the rules of the house. {long_text[:8000]}")
    first = respond(ark, [rules, user("Hello")], model=model_of("ark"), max_output_tokens=50, **caching)
    second = respond(
        ark, [user("And?")], model=model_of("ark"), max_output_tokens=50, previous_response_id=first.id, **caching
    )
    ark.close()
    assert text_of_response(second) == f"You sent me {second.usage.input_tokens} tokens."
    assert first.usage.input_tokens <= counted(second) < second.usage.input_tokens
