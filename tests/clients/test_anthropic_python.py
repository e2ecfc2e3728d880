"""anthropic-sdk-python, unmodified, against the embedded engine. Runs under the newest version, which speaks the API of
2026-10-21 with a bearer token, and under the last one before it, which speaks that of 2023-06-01 with `x-api-key`."""

import asyncio

import anthropic
import pytest

from emulators import EMBEDDED, model_of
from gateway import KEY
from shapes import HOTEL, PICTURE, REVIEW, Verdict
from wire import Wire, system, user

WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Paris", "Rome"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
FORCED = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather"}}

# The newest SDK has no `temperature` any more; the field is the gateway's still.
EXACT = {"extra_body": {"temperature": 0}}


@pytest.fixture(scope="module")
def client(mixed_gateway):
    with anthropic.Anthropic(base_url=mixed_gateway.url, api_key=KEY, _strict_response_validation=True) as client:
        yield client


@pytest.fixture
def mixed_wire(mixed_gateway):
    with Wire(mixed_gateway.url) as wire:
        yield wire


def ask(client, text: str, **fields):
    return client.messages.create(
        **{"model": EMBEDDED, "max_tokens": 8, "messages": [user(text)], **EXACT, **fields}
    )


def text_of(message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_plain_message(client):
    message = ask(client, "When is breakfast?", system=HOTEL)
    assert (message.type, message.role, message.model) == ("message", "assistant", EMBEDDED)
    assert message.id.startswith("msg_")
    assert text_of(message)
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.stop_sequence is None
    assert message.usage.input_tokens > 20
    assert 0 < message.usage.output_tokens <= 8
    assert (message.usage.cache_read_input_tokens, message.usage.cache_creation_input_tokens) == (0, 0)
    assert message._request_id


def test_a_system_text_may_be_blocks(client):
    one = ask(client, "When is breakfast?", system=HOTEL)
    blocks = ask(client, "When is breakfast?", system=[{"type": "text", "text": HOTEL}])
    assert (text_of(one), one.usage) == (text_of(blocks), blocks.usage)


def test_a_conversation(client):
    messages = [user("My name is Ann."), {"role": "assistant", "content": "Hello, Ann."}, user("Who am I?")]
    longer = ask(client, "", messages=messages)
    assert text_of(longer)
    assert longer.usage.input_tokens > ask(client, "Who am I?").usage.input_tokens


def test_the_ends_of_an_answer(client):
    cut = ask(client, "Tell me a long story.", max_tokens=3)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 3)
    free = ask(client, "When is breakfast?", system=HOTEL, max_tokens=24)
    word = text_of(free).split()[3][1:]
    stopped = ask(client, "When is breakfast?", system=HOTEL, max_tokens=24, stop_sequences=["zebra", word])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    assert text_of(stopped) == text_of(free)[: text_of(free).index(word)]


def test_a_stream_says_the_same(client):
    question = {"system": HOTEL, "max_tokens": 10}
    whole = ask(client, "When is breakfast?", **question)
    events = list(ask(client, "When is breakfast?", stream=True, **question))
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
    started = events[0].message
    assert (started.role, started.content, started.stop_reason) == ("assistant", [], None)
    # The prompt is counted when the answer begins, where clients look for it.
    assert started.usage.input_tokens == whole.usage.input_tokens
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    assert text == text_of(whole)
    assert events[-2].delta.stop_reason == whole.stop_reason
    assert events[-2].usage.output_tokens == whole.usage.output_tokens


def test_the_stream_helper(client):
    question = {"system": HOTEL, "max_tokens": 10}
    whole = ask(client, "When is breakfast?", **question)
    with client.messages.stream(
        model=EMBEDDED, messages=[user("When is breakfast?")], **question, **EXACT
    ) as stream:
        assert "".join(stream.text_stream) == text_of(whole)
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage) == (whole.stop_reason, whole.usage)


def test_a_stream_can_be_left(client):
    with client.messages.stream(
        model=EMBEDDED, messages=[user("Count upwards from one.")], max_tokens=4000
    ) as stream:
        for event in stream:
            if event.type == "text":
                break
    assert text_of(ask(client, "Hello"))


def test_the_async_client(mixed_gateway):
    async def talk() -> tuple[str, str]:
        async with anthropic.AsyncAnthropic(base_url=mixed_gateway.url, api_key=KEY) as client:
            question = {"model": EMBEDDED, "max_tokens": 8, "messages": [user("Say hello.")], **EXACT}
            whole = await client.messages.create(**question)
            async with client.messages.stream(**question) as stream:
                return text_of(whole), await stream.get_final_text()

    whole, streamed = asyncio.run(talk())
    assert whole and whole == streamed


@pytest.mark.parametrize("choice", [FORCED["tool_choice"], {"type": "any", "disable_parallel_tool_use": True}])
def test_a_forced_tool_is_called_with_arguments_that_fit(client, choice):
    message = ask(client, "Weather in Rome?", max_tokens=100, tools=[WEATHER], tool_choice=choice)
    (call,) = message.content
    assert (call.type, call.name, message.stop_reason) == ("tool_use", "get_weather", "tool_use")
    assert call.id
    assert set(call.input) == {"city", "days"}
    assert call.input["city"] in ("Paris", "Rome") and call.input["days"] in range(1, 8)


def test_a_streamed_tool_call_is_the_whole_one_in_pieces(client):
    (whole,) = ask(client, "Weather in Rome?", max_tokens=100, **FORCED).content
    question = {"model": EMBEDDED, "messages": [user("Weather in Rome?")], "max_tokens": 100, **FORCED, **EXACT}
    with client.messages.stream(**question) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    (call,) = final.content
    assert (call.name, call.input, final.stop_reason) == (whole.name, whole.input, "tool_use")
    assert len(pieces) > 1


def test_a_result_of_a_tool_is_answered(client):
    called = ask(client, "Weather in Rome?", max_tokens=100, **FORCED)
    result = {"type": "tool_result", "tool_use_id": called.content[0].id, "content": "Sunny, 24 degrees."}
    messages = [
        user("Weather in Rome?"),
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result, {"type": "text", "text": "So what do I wear?"}]},
    ]
    answer = ask(client, "", messages=messages, tools=[WEATHER], tool_choice={"type": "none"})
    assert text_of(answer)
    # Tools that may not be called are not shown.
    assert answer.usage.input_tokens > ask(client, "Weather in Rome?").usage.input_tokens


def test_an_answer_is_parsed_into_the_clients_own_type(client):
    message = client.messages.parse(
        model=EMBEDDED, max_tokens=60, messages=[user(REVIEW)], output_format=Verdict, **EXACT
    )
    assert isinstance(message.parsed_output, Verdict)
    assert message.stop_reason == "end_turn"


def test_a_picture_is_refused_by_a_model_that_reads_text_only(client):
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
    with pytest.raises(anthropic.BadRequestError) as refused:
        ask(client, "", messages=[{"role": "user", "content": content}])
    assert refused.value.body["error"]["type"] == "invalid_request_error"


def marked(text: str, **control) -> list[dict]:
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral", **control}}]


@pytest.mark.parametrize("ttl", [{}, {"ttl": "1h"}], ids=["5m", "1h"])
def test_a_marked_system_text_is_written_once_and_read_then(client, ttl):
    rules = marked(f"{HOTEL} These rules are for tests of {ttl}. " * 4, **ttl)
    first = ask(client, "When is breakfast?", system=rules)
    second = ask(client, "When does the pool close?", system=rules)
    written = first.usage.cache_creation_input_tokens
    assert written > 60 and first.usage.cache_read_input_tokens == 0
    if first.usage.cache_creation:
        long = first.usage.cache_creation.ephemeral_1h_input_tokens
        assert (long, first.usage.cache_creation.ephemeral_5m_input_tokens) == (
            (written, 0) if ttl else (0, written)
        )
    assert (second.usage.cache_read_input_tokens, second.usage.cache_creation_input_tokens) == (written, 0)
    # The three numbers are of different tokens.
    unmarked = ask(client, "When does the pool close?", system=rules[0]["text"])
    assert unmarked.usage.input_tokens == second.usage.input_tokens + written
    assert text_of(unmarked) == text_of(second)


def test_an_automatic_marker_moves_with_the_conversation(client):
    control = {"extra_body": {"cache_control": {"type": "ephemeral"}, "temperature": 0}}
    messages = [user(f"{HOTEL} This conversation is a test of markers that move.")]
    first = ask(client, "", messages=messages, **control)
    assert first.usage.cache_creation_input_tokens > 0
    messages += [{"role": "assistant", "content": text_of(first)}, user("And when does the pool close?")]
    second = ask(client, "", messages=messages, **control)
    assert second.usage.cache_read_input_tokens >= first.usage.cache_creation_input_tokens


def test_a_context_of_the_gateways_own(client, mixed_wire):
    context = mixed_wire.create(EMBEDDED, system(HOTEL))
    raw = client.messages.with_raw_response.create(
        model=EMBEDDED,
        max_tokens=8,
        messages=[user("When is breakfast?")],
        extra_body={"context_id": context["id"], "temperature": 0},
    )
    assert raw.headers["x-context-cache"].split(";")[0] == "hit"
    message = raw.parse()
    assert message.usage.cache_read_input_tokens == context["usage"]["prompt_tokens"]
    assert text_of(message) == text_of(ask(client, "When is breakfast?", system=HOTEL))


def test_tokens_are_counted_as_they_are_used(client):
    for question in (
        {"messages": [user("When is breakfast?")], "system": HOTEL},
        {"messages": [user("Weather in Rome?")], "tools": [WEATHER]},
    ):
        counted = client.messages.count_tokens(model=EMBEDDED, **question)
        assert counted.input_tokens == ask(client, "", **question).usage.input_tokens


def test_models_are_listed(mixed_gateway):
    with anthropic.Anthropic(base_url=mixed_gateway.url, api_key=KEY) as client:
        assert {EMBEDDED, model_of("anthropic")} <= {model.id for model in client.models.list()}
        assert client.models.retrieve(EMBEDDED).id == EMBEDDED


@pytest.mark.parametrize("credential", ["api_key", "auth_token"])
def test_a_wrong_key_is_an_authentication_error(mixed_gateway, credential):
    wrong = {credential: "hf-somebody-elses-key-0000000000"}
    with anthropic.Anthropic(base_url=mixed_gateway.url, **wrong) as client:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            ask(client, "Hello")
    assert refused.value.body["type"] == "error"
    assert refused.value.body["error"]["type"] == "authentication_error"
    assert refused.value.request_id


def test_a_bearer_token_is_a_key(mixed_gateway):
    with anthropic.Anthropic(base_url=mixed_gateway.url, auth_token=KEY) as client:
        assert text_of(ask(client, "Hello"))


@pytest.mark.parametrize(
    ("fields", "error", "kind"),
    [
        ({"model": "claude-none"}, anthropic.NotFoundError, "not_found_error"),
        ({"max_tokens": -1}, anthropic.BadRequestError, "invalid_request_error"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, anthropic.BadRequestError, "invalid_request_error"),
        ({"tool_choice": {"type": "tool", "name": "none"}}, anthropic.BadRequestError, "invalid_request_error"),
        ({"extra_body": {"temperature": 9}}, anthropic.BadRequestError, "invalid_request_error"),
        (
            {"extra_body": {"context_id": "ctx-20260101000000-aaaaaaaaaaaaaaaa"}},
            anthropic.NotFoundError,
            "not_found_error",
        ),
    ],
    ids=["model", "max_tokens", "messages", "role", "tool_choice", "temperature", "context"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_bad_request_has_its_class(client, fields, error, kind, stream):
    with pytest.raises(error) as refused:
        ask(client, "Hello", **{"tools": [WEATHER], **fields}, stream=stream)
    body = refused.value.body
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["error"]["message"]
    assert refused.value.request_id


def test_the_sdk_repeats_what_was_refused_for_a_while(mixed_gateway):
    attempts: list[int] = []
    hooks = {"response": [lambda answer: attempts.append(answer.status_code)]}
    http_client = anthropic.DefaultHttpxClient(event_hooks=hooks)
    with anthropic.Anthropic(
        base_url=mixed_gateway.url, api_key=KEY, max_retries=1, http_client=http_client
    ) as client:
        with pytest.raises(anthropic.RateLimitError) as refused:
            ask(client, "Hello", model=model_of("limited-openai-anthropic"))
    assert attempts == [429, 429]
    assert refused.value.body["error"]["type"] == "rate_limit_error"
