"""openai-python, unmodified: the context's id in `extra_body`, everything else as ever."""

import json
import threading
from typing import Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict

from gateway import DOUBAO, GEMINI, KEY
from wire import NEVER_END, system, user

TEXT = "You are the porter of the Hotel Meridian. Breakfast is from seven to ten. The pool closes at nine."

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Paris", "Rome"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


class Verdict(BaseModel):
    # As OpenAI's strict schemas have it: without this, other keys may follow, and a small model never stops.
    model_config = ConfigDict(extra="forbid")

    sentiment: Literal["good", "bad"]
    stars: Literal[1, 2, 3, 4, 5]


@pytest.fixture
def context_id(wire) -> str:
    return wire.create(GEMINI, system(TEXT))["id"]


def ask(client, text: str, **fields):
    return client.chat.completions.create(
        **{"model": GEMINI, "messages": [user(text)], "max_tokens": 8, "temperature": 0, **fields}
    )


def typed(usage, context_tokens: int | None = None) -> None:
    assert type(usage).__name__ == "CompletionUsage"
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert isinstance(usage.prompt_tokens_details.cached_tokens, int)
    if context_tokens is not None:
        assert usage.prompt_tokens_details.cached_tokens == context_tokens


def test_models_are_listed_and_got(client):
    assert {GEMINI, DOUBAO} <= {model.id for model in client.models.list()}
    model = client.models.retrieve(DOUBAO)
    assert (model.id, model.object) == (DOUBAO, "model")
    assert model.created > 0
    assert "context" in model.supported_endpoint_types


def test_a_chat_without_context_is_an_ordinary_one(client):
    for context in ({}, {"context_id": None}, {"context_id": ""}):
        raw = client.chat.completions.with_raw_response.create(
            model=GEMINI, messages=[user("Say hello.")], max_tokens=6, extra_body=context
        )
        assert "x-context-cache" not in raw.headers
        answer = raw.parse()
        assert answer.object == "chat.completion"
        assert answer.choices[0].message.content
        assert answer.choices[0].finish_reason in ("stop", "length")
        typed(answer.usage)


def test_a_chat_with_a_context(client, wire, context_id):
    raw = client.chat.completions.with_raw_response.create(
        model=GEMINI,
        messages=[user("When is breakfast?")],
        max_tokens=12,
        extra_body={"context_id": context_id},
    )
    assert raw.headers["x-context-cache"].split(";")[0] == "hit"
    answer = raw.parse()
    typed(answer.usage, wire.context(context_id)["prefix_tokens"])
    assert answer.context_cache["status"] == "hit"
    assert answer.usage.cache_read_input_tokens == answer.usage.prompt_tokens_details.cached_tokens


def test_the_answer_is_the_one_without_the_context(client, context_id):
    """What the cache saves is time, not words."""
    with_context = ask(client, "When does the pool close?", max_tokens=24, extra_body={"context_id": context_id})
    without = client.chat.completions.create(
        model=GEMINI,
        messages=[system(TEXT), user("When does the pool close?")],
        max_tokens=24,
        temperature=0,
    )
    assert with_context.choices[0].message.content == without.choices[0].message.content
    assert with_context.usage.prompt_tokens == without.usage.prompt_tokens


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_with_a_context(client, wire, context_id, include_usage):
    question = {"max_tokens": 10, "extra_body": {"context_id": context_id}}
    whole = ask(client, "When is breakfast?", **question)
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    with client.chat.completions.with_streaming_response.create(
        model=GEMINI, messages=[user("When is breakfast?")], temperature=0, stream=True, **options, **question
    ) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["x-context-cache"].split(";")[0] == "hit"
        chunks = list(raw.parse())
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    last = chunks.pop() if include_usage else None
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    if include_usage:
        assert last.choices == []
        typed(last.usage, wire.context(context_id)["prefix_tokens"])
        assert last.usage == whole.usage
        assert last.context_cache["status"] == "hit"
    else:
        assert chunks[-1].context_cache["status"] == "hit"


def test_a_session_remembers_turns_of_both_kinds(client, wire):
    session = wire.session(GEMINI, TEXT)
    extra = {"extra_body": {"context_id": session}}
    first = ask(client, "When is breakfast?", **extra)
    list(ask(client, "And when does the pool close?", stream=True, **extra))
    third = ask(client, "Thank you.", **extra)
    assert wire.context(session)["turns"] == 3
    assert third.usage.prompt_tokens_details.cached_tokens > first.usage.total_tokens


def test_a_forced_tool_is_called_with_arguments_that_fit(client):
    answer = ask(
        client,
        "What will the weather in Rome be like?",
        max_tokens=100,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.id and call.type == "function"
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "days"}
    assert arguments["city"] in ("Paris", "Rome") and arguments["days"] in range(1, 8)


def test_a_required_tool_is_one_of_those_given(client):
    other = {"type": "function", "function": {"name": "ring", "parameters": {"type": "object", "properties": {}}}}
    answer = ask(client, "Ring the bell.", max_tokens=100, tools=[WEATHER, other], tool_choice="required")
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name in ("get_weather", "ring")
    json.loads(call.function.arguments)


def test_a_streamed_tool_call_is_the_whole_one_in_pieces(client):
    question = {
        "max_tokens": 100,
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    }
    (whole,) = ask(client, "Weather in Paris?", **question).choices[0].message.tool_calls
    name, arguments, reasons, ids = "", "", [], set()
    for chunk in ask(client, "Weather in Paris?", stream=True, **question):
        for piece in chunk.choices[0].delta.tool_calls or []:
            assert piece.index == 0
            ids |= {piece.id} - {None}
            name += piece.function.name or ""
            arguments += piece.function.arguments or ""
        reasons += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
    assert (name, arguments) == (whole.function.name, whole.function.arguments)
    assert reasons == ["tool_calls"]
    assert len(ids) == 1


def test_a_session_goes_on_after_a_tool_call(client, wire):
    session = wire.session(DOUBAO, TEXT, tools=[WEATHER])
    extra = {"model": DOUBAO, "max_tokens": 100, "extra_body": {"context_id": session}}
    called = ask(client, "Weather in Paris?", tool_choice="required", **extra)
    (call,) = called.choices[0].message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 24 degrees."}
    answer = client.chat.completions.create(messages=[result], tool_choice="none", **(extra | {"max_tokens": 8}))
    assert answer.choices[0].message.content
    assert answer.usage.prompt_tokens_details.cached_tokens > called.usage.prompt_tokens
    assert wire.context(session)["turns"] == 2


def test_tools_beside_a_context_of_a_gemini_model_are_refused(client, context_id):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "Weather?", tools=[WEATHER], extra_body={"context_id": context_id})
    assert refused.value.code == "InvalidParameter.UnsupportedParameter"
    assert refused.value.param == "tools"


def test_an_answer_is_parsed_into_the_clients_own_type(client, context_id):
    answer = client.chat.completions.parse(
        model=GEMINI,
        messages=[user("A guest writes: the breakfast was wonderful. Rate the review.")],
        response_format=Verdict,
        max_tokens=60,
        extra_body={"context_id": context_id},
    )
    assert isinstance(answer.choices[0].message.parsed, Verdict)
    assert answer.choices[0].finish_reason == "stop"


def test_any_seed_gives_json_of_the_schema(client):
    schema = {"name": "verdict", "strict": True, "schema": Verdict.model_json_schema()}
    for seed in range(3):
        answer = ask(
            client,
            "Rate the hotel.",
            max_tokens=60,
            temperature=1.5,
            seed=seed,
            response_format={"type": "json_schema", "json_schema": schema},
        )
        Verdict.model_validate_json(answer.choices[0].message.content)


def test_json_object_gives_a_json_object(client):
    answer = ask(
        client,
        'Answer with the JSON object {"city": "Rome"} and nothing else.',
        max_tokens=300,
        response_format={"type": "json_object"},
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_logprobs_cover_every_token_of_the_answer(client, context_id):
    extra = {"extra_body": {"context_id": context_id}}
    answer = ask(client, "When is breakfast?", logprobs=True, top_logprobs=3, logit_bias=NEVER_END, **extra)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens == 8
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    for token in tokens:
        best = [alternative.logprob for alternative in token.top_logprobs]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        assert token.logprob <= 0
        assert bytes(token.bytes).decode(errors="replace") == token.token
        # At temperature 0 the likeliest token that may be taken is taken.
        assert token.logprob == best[0] or token.top_logprobs[0].token.startswith("<|")
    plain = ask(client, "When is breakfast?", **extra)
    assert plain.choices[0].logprobs is None


def test_three_answers_to_one_question(client, wire, context_id):
    extra = {"extra_body": {"context_id": context_id}}
    answer = ask(client, "Tell me a story.", n=3, temperature=1.2, seed=11, logit_bias=NEVER_END, **extra)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage.completion_tokens == 3 * 8
    typed(answer.usage, wire.context(context_id)["prefix_tokens"])


def test_three_answers_can_not_be_one_turn(client, wire):
    session = wire.session(GEMINI)
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "Hello", n=3, extra_body={"context_id": session})
    assert refused.value.param == "n"
    assert wire.context(session)["turns"] == 0


def test_a_stop_word_ends_the_answer_and_is_not_part_of_it(client, context_id):
    extra = {"extra_body": {"context_id": context_id}}
    free = ask(client, "When is breakfast?", max_tokens=24, **extra).choices[0].message.content
    # Some word in the middle, so that it spans tokens or parts of them.
    word = free.split()[3][1:]
    expected = free[: free.index(word)]
    for stop in (word, ["no such word here", word]):
        answer = ask(client, "When is breakfast?", max_tokens=24, stop=stop, **extra).choices[0]
        assert (answer.message.content, answer.finish_reason) == (expected, "stop")
        pieces = list(ask(client, "When is breakfast?", max_tokens=24, stop=stop, stream=True, **extra))
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == expected


def test_the_same_seed_gives_the_same_answer(client, context_id):
    def tell(seed: int) -> str:
        answer = ask(
            client,
            "Tell me a story.",
            seed=seed,
            temperature=1.3,
            max_tokens=16,
            logit_bias=NEVER_END,
            extra_body={"context_id": context_id},
        )
        return answer.choices[0].message.content

    stories = [tell(seed) for seed in (1, 2, 3, 1, 2, 3)]
    assert stories[:3] == stories[3:]
    assert len(set(stories)) > 1


@pytest.mark.parametrize(
    "fields",
    [
        {"top_p": 0.1},
        {"frequency_penalty": 1.5},
        {"presence_penalty": -1.0},
        {"user": "guest-7"},
        {"service_tier": "default"},
        {"metadata": {"room": "12"}},
        {"parallel_tool_calls": False},
        {"max_completion_tokens": 3},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_other_parameters_are_taken(client, fields):
    answer = ask(client, "Hello", **fields)
    assert answer.choices[0].message.content
    if "max_completion_tokens" in fields:
        assert answer.usage.completion_tokens <= 3


def test_penalties_change_the_answer(client):
    """A model that may not end repeats itself, unless repeating costs."""

    def repeat(**fields) -> str:
        answer = ask(client, "Say la la la la la la.", max_tokens=24, logit_bias=NEVER_END, **fields)
        return answer.choices[0].message.content

    assert repeat() != repeat(frequency_penalty=2)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 5}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [user("Hi"), {"role": "assistant", "content": "Yes"}]}, "messages"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "none"}}}, "tool_choice"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_bad_field_is_named(client, fields, param):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "Hello", **fields)
    assert refused.value.param == param
    assert refused.value.type == "BadRequest"
    assert refused.value.code
    assert refused.value.request_id


def test_a_wrong_key_is_an_authentication_error(gateway):
    with openai.OpenAI(base_url=gateway.v1, api_key="hf-somebody-elses-key-0000000000") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert refused.value.code == "AuthenticationError"


def test_an_unknown_model_or_context_is_not_found(client, context_id):
    with pytest.raises(openai.NotFoundError) as no_model:
        ask(client, "Hello", model="gpt-none")
    assert (no_model.value.code, no_model.value.param) == ("InvalidEndpointOrModel.NotFound", "model")
    for unknown in ("ctx-20260101000000-aaaaaaaaaaaaaaaaaaaaaaaaaa", "not an id"):
        with pytest.raises(openai.NotFoundError) as no_context:
            ask(client, "Hello", extra_body={"context_id": unknown})
        assert (no_context.value.code, no_context.value.param) == ("NotFound.context_id", "context_id")


def test_a_context_works_with_its_own_model_only(client, context_id):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "Hello", model=DOUBAO, extra_body={"context_id": context_id})
    assert refused.value.param == "model"
    assert GEMINI in refused.value.message and DOUBAO in refused.value.message


def attempts_of(refusals: list[int]) -> openai.DefaultHttpxClient:
    return openai.DefaultHttpxClient(event_hooks={"response": [lambda answer: refusals.append(answer.status_code)]})


def test_the_sdk_waits_for_a_busy_session_by_itself(gateway, wire):
    session = wire.session(GEMINI)
    refusals: list[int] = []
    with (
        openai.OpenAI(
            base_url=gateway.v1, api_key=KEY, http_client=attempts_of(refusals), max_retries=8
        ) as client,
        wire.running_turn(session, max_tokens=25) as chunks,
    ):
        ask(client, "Are you there?", extra_body={"context_id": session})
        assert [*chunks][-1]["choices"][0]["finish_reason"] == "length"
    assert refusals[0] == 403 and refusals[-1] == 200
    assert wire.context(session)["turns"] == 2


def test_a_session_that_stays_busy_is_a_permission_error_after_three_attempts(gateway, wire):
    session = wire.session(GEMINI)
    refusals: list[int] = []
    with (
        openai.OpenAI(base_url=gateway.v1, api_key=KEY, http_client=attempts_of(refusals)) as client,
        wire.running_turn(session, max_tokens=4000),
        pytest.raises(openai.PermissionDeniedError) as busy,
    ):
        ask(client, "Are you there?", extra_body={"context_id": session})
    assert refusals == [403, 403, 403]
    assert busy.value.code == "OperationDenied.InvalidState"


def test_turns_from_two_threads_both_end_well(client, wire):
    """Whichever comes second waits by repeating itself; nothing is lost and nothing happens twice."""
    session = wire.session(GEMINI)
    patient = client.with_options(max_retries=10)
    failures: list[Exception] = []

    def turn(text: str) -> None:
        try:
            ask(patient, text, extra_body={"context_id": session})
        except openai.OpenAIError as error:
            failures.append(error)

    threads = [threading.Thread(target=turn, args=(f"Question {number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert wire.context(session)["turns"] == 2


def test_chats_on_one_prefix_go_side_by_side(client, context_id):
    once = client.with_options(max_retries=0)
    answers: list[str] = []

    def chat() -> None:
        answer = ask(once, "When is breakfast?", extra_body={"context_id": context_id})
        answers.append(answer.choices[0].message.content)

    threads = [threading.Thread(target=chat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4 and len(set(answers)) == 1
