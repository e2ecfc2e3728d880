"""openai-python's Responses, unmodified, against the embedded engine."""

import asyncio
import json

import openai
import pytest

from emulators import EMBEDDED, model_of
from gateway import KEY
from shapes import HOTEL, PICTURE, REVIEW, Verdict

WEATHER = {
    "type": "function",
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
    "strict": True,
}
FORCED = {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}, "max_output_tokens": 100}


@pytest.fixture(scope="module")
def client(mixed_gateway):
    with openai.OpenAI(base_url=mixed_gateway.v1, api_key=KEY, _strict_response_validation=True) as client:
        yield client


def ask(client, asked: str | list, **fields):
    return client.responses.create(
        **{"model": EMBEDDED, "input": asked, "max_output_tokens": 8, "temperature": 0, **fields}
    )


def message(role: str, text: str) -> dict:
    return {"role": role, "content": text}


def test_a_plain_response(client):
    response = ask(client, "When is breakfast?", instructions=HOTEL, metadata={"room": "7"})
    assert response.object == "response"
    assert response.id.startswith("resp_")
    assert response.model == EMBEDDED
    assert response.status in ("completed", "incomplete")
    assert response.error is None
    assert (response.instructions, response.metadata, response.temperature) == (HOTEL, {"room": "7"}, 0)
    (item,) = response.output
    assert (item.type, item.role) == ("message", "assistant")
    assert response.output_text == item.content[0].text != ""
    usage = response.usage
    assert usage.input_tokens > 20 and 0 < usage.output_tokens <= 8
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    # It may begin like something that is held already.
    assert 0 <= usage.input_tokens_details.cached_tokens < usage.input_tokens


def test_it_says_what_chat_completions_say(client):
    response = ask(client, "When is breakfast?", instructions=HOTEL)
    messages = [message("system", HOTEL), message("user", "When is breakfast?")]
    chat = client.chat.completions.create(model=EMBEDDED, messages=messages, max_tokens=8, temperature=0)
    assert response.output_text == chat.choices[0].message.content
    assert response.usage.input_tokens == chat.usage.prompt_tokens


def test_instructions_may_be_messages(client):
    one = ask(client, "When is breakfast?", instructions=HOTEL)
    for first in (
        message("system", HOTEL),
        message("developer", HOTEL),
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": HOTEL}]},
    ):
        other = ask(client, [first, message("user", "When is breakfast?")])
        assert (other.output_text, other.usage.input_tokens) == (one.output_text, one.usage.input_tokens)


def test_an_answer_that_is_cut_is_incomplete(client):
    short = ask(client, "Tell me a long story.", max_output_tokens=3)
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (short.output[0].status, short.usage.output_tokens) == ("incomplete", 3)


def test_a_stored_response_can_be_had_again_and_deleted(client):
    made = ask(client, [message("user", "My name is Ann."), message("user", "Who am I?")], instructions=HOTEL)
    again = client.responses.retrieve(made.id)
    assert again == made
    items = list(client.responses.input_items.list(made.id, order="asc"))
    assert [item.role for item in items] == ["user", "user"]
    assert [item.content[0].text for item in items] == ["My name is Ann.", "Who am I?"]
    backwards = list(client.responses.input_items.list(made.id, limit=1))
    assert [item.id for item in backwards] == [item.id for item in reversed(items)]
    client.responses.delete(made.id)
    for gone in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            gone(made.id)


def test_what_is_not_stored_is_gone(client):
    made = ask(client, "Hello", store=False)
    assert made.output_text
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "And now?", previous_response_id=made.id)
    assert refused.value.code == "previous_response_not_found"


def test_a_chain_goes_on_and_is_cached(client):
    first = ask(client, [message("system", f"{HOTEL} This is a chain."), message("user", "When is breakfast?")])
    second = ask(client, "And when does the pool close?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.total_tokens
    # What the first one has written, the second one reads.
    held = first.usage.input_tokens_details
    assert second.usage.input_tokens_details.cached_tokens >= held.cached_tokens + held.cache_write_tokens > 30
    # Two may go on from one.
    branch = ask(client, "And when does the pool close?", previous_response_id=first.id)
    assert (branch.output_text, branch.usage.input_tokens) == (second.output_text, second.usage.input_tokens)
    third = ask(client, "Thank you.", previous_response_id=second.id)
    assert third.usage.input_tokens > second.usage.total_tokens
    # It says what it would say to all of it.
    whole = [
        message("system", f"{HOTEL} This is a chain."),
        message("user", "When is breakfast?"),
        message("assistant", first.output_text),
        message("user", "And when does the pool close?"),
    ]
    assert ask(client, whole).output_text == second.output_text


def test_instructions_are_not_carried_over(client):
    first = ask(client, "When is breakfast?", instructions=HOTEL)
    bare = ask(client, "Really?", previous_response_id=first.id)
    renewed = ask(client, "Really?", previous_response_id=first.id, instructions=HOTEL)
    assert bare.instructions is None
    assert renewed.usage.input_tokens > bare.usage.input_tokens


def test_an_unknown_response_before(client):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "Hello", previous_response_id="resp_none")
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")


def test_a_conversation(client):
    conversation = client.conversations.create(
        items=[{"type": "message", **message("system", HOTEL)}], metadata={"room": "7"}
    )
    assert conversation.id.startswith("conv_")
    first = ask(client, "When is breakfast?", conversation=conversation.id)
    assert first.conversation.id == conversation.id
    second = ask(client, "And the pool?", conversation={"id": conversation.id})
    assert second.usage.input_tokens > first.usage.total_tokens
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    assert [item.role for item in items] == ["system", "user", "assistant", "user", "assistant"]
    assert items[2].content[0].text == first.output_text
    assert client.conversations.update(conversation.id, metadata={"room": "8"}).metadata == {"room": "8"}
    assert client.conversations.retrieve(conversation.id).metadata == {"room": "8"}
    with pytest.raises(openai.BadRequestError):
        ask(client, "Hello", conversation=conversation.id, previous_response_id=first.id)
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)
    with pytest.raises(openai.NotFoundError):
        ask(client, "Hello", conversation=conversation.id)


@pytest.mark.parametrize("when", ["before", "after"])
def test_items_are_added_to_a_conversation_and_deleted(client, when):
    """Before its first response, and after it."""
    conversation = client.conversations.create()
    if when == "after":
        ask(client, "When is breakfast?", conversation=conversation.id)
    before = len(list(client.conversations.items.list(conversation.id)))
    added = client.conversations.items.create(
        conversation.id, items=[{"type": "message", **message("user", "I am in room 7.")}]
    )
    (item,) = added.data
    assert client.conversations.items.retrieve(item.id, conversation_id=conversation.id).role == "user"
    assert len(list(client.conversations.items.list(conversation.id))) == before + 1
    client.conversations.items.delete(item.id, conversation_id=conversation.id)
    assert len(list(client.conversations.items.list(conversation.id))) == before
    client.conversations.delete(conversation.id)


def test_a_stream_says_the_same(client):
    question = {"instructions": HOTEL, "max_output_tokens": 10}
    whole = ask(client, "When is breakfast?", **question)
    events = list(ask(client, "When is breakfast?", stream=True, **question))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas > 1
    last = "response.completed" if whole.status == "completed" else "response.incomplete"
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        last,
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type.endswith("text.delta")) == whole.output_text
    begun, final = events[0].response, events[-1].response
    assert (begun.status, begun.output, begun.usage) == ("in_progress", [], None)
    assert (final.id, final.output_text, final.usage) == (begun.id, whole.output_text, whole.usage)
    assert client.responses.retrieve(final.id).output_text == whole.output_text


def test_the_stream_helper(client):
    question = {"model": EMBEDDED, "input": "When is breakfast?", "instructions": HOTEL, "temperature": 0}
    whole = client.responses.create(**question)
    with client.responses.stream(**question) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == whole.output_text
    following = ask(client, "And when does the pool close?", previous_response_id=final.id)
    assert following.previous_response_id == final.id
    assert following.usage.input_tokens > ask(client, "And when does the pool close?").usage.input_tokens


def test_a_stream_can_be_left(client):
    stream = ask(client, "Count upwards from one.", max_output_tokens=4000, stream=True)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    stream.close()
    assert ask(client, "Hello").output_text


def test_the_async_client(mixed_gateway):
    async def talk() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=mixed_gateway.v1, api_key=KEY) as client:
            question = {"model": EMBEDDED, "input": "Say hello.", "max_output_tokens": 40, "temperature": 0}
            whole = await client.responses.create(**question)
            stream = await client.responses.create(**question, stream=True)
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            return whole.output_text, "".join(deltas)

    whole, streamed = asyncio.run(talk())
    assert whole and whole == streamed


def test_a_forced_tool_is_called_with_arguments_that_fit(client):
    response = ask(client, "Weather in Rome?", **FORCED)
    (call,) = response.output
    assert (call.type, call.name, call.status, response.status) == (
        "function_call",
        "get_weather",
        "completed",
        "completed",
    )
    arguments = json.loads(call.arguments)
    assert set(arguments) == {"city", "days"}
    assert arguments["city"] in ("Paris", "Rome") and arguments["days"] in range(1, 8)
    with client.responses.stream(model=EMBEDDED, input="Weather in Rome?", temperature=0, **FORCED) as stream:
        events = list(stream)
        (streamed,) = stream.get_final_response().output
    assert (streamed.name, streamed.arguments) == (call.name, call.arguments)
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert len(pieces) > 1 and "".join(pieces) == call.arguments


def test_a_result_of_a_tool_is_answered_in_both_ways(client):
    called = ask(client, "Weather in Rome?", **FORCED)
    result = {"type": "function_call_output", "call_id": called.output[0].call_id, "output": "Sunny, 24 degrees."}
    chained = ask(client, [result], previous_response_id=called.id)
    call = called.output[0].model_dump(exclude_none=True)
    call = {key: call[key] for key in ("type", "call_id", "name", "arguments")}
    stateless = ask(client, [message("user", "Weather in Rome?"), call, result])
    assert chained.output_text
    assert (chained.output_text, chained.usage.input_tokens) == (
        stateless.output_text,
        stateless.usage.input_tokens,
    )


def test_an_answer_is_parsed_into_the_clients_own_type(client):
    response = client.responses.parse(
        model=EMBEDDED, input=REVIEW, text_format=Verdict, max_output_tokens=60, temperature=0
    )
    assert isinstance(response.output_parsed, Verdict)
    assert response.status == "completed"


def test_a_json_object(client):
    response = ask(
        client,
        'Answer with the JSON object {"city": "Rome"} and nothing else.',
        text={"format": {"type": "json_object"}},
        max_output_tokens=300,
    )
    assert isinstance(json.loads(response.output_text), dict)


def test_a_picture_is_refused_by_a_model_that_reads_text_only(client):
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}", "detail": "auto"}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, [{"role": "user", "content": [{"type": "input_text", "text": "What is this?"}, image]}])
    assert refused.value.code


@pytest.mark.parametrize("way", ["key", "breakpoint"])
def test_a_prefix_is_cached(client, way):
    rules = f"{HOTEL} These rules are for a test of the {way}. " * 3

    def question(text: str):
        part = {"type": "input_text", "text": rules}
        if way == "breakpoint":
            return ask(
                client,
                [
                    {"role": "system", "content": [part | {"prompt_cache_breakpoint": {"mode": "explicit"}}]},
                    message("user", text),
                ],
            )
        return ask(
            client, [{"role": "system", "content": [part]}, message("user", text)], prompt_cache_key="porter"
        )

    first, second = question("When is breakfast?"), question("When does the pool close?")
    details = first.usage.input_tokens_details, second.usage.input_tokens_details
    assert (details[0].cached_tokens, details[1].cache_write_tokens) == (0, 0)
    assert details[0].cache_write_tokens == details[1].cached_tokens > 60


def test_a_wrong_key_is_an_authentication_error(mixed_gateway):
    with openai.OpenAI(base_url=mixed_gateway.v1, api_key="hf-somebody-elses-key-0000000000") as client:
        with pytest.raises(openai.AuthenticationError):
            ask(client, "Hello")


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"model": "gpt-none"}, openai.NotFoundError, "model"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"max_output_tokens": -1}, openai.BadRequestError, "max_output_tokens"),
        ({"text": {"format": {"type": "xml"}}}, openai.BadRequestError, "text.format.type"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "none"}},
            openai.BadRequestError,
            "tool_choice",
        ),
        ({"input": [{"role": "wizard", "content": "Hi"}]}, openai.BadRequestError, "input[0].role"),
    ],
    ids=["model", "temperature", "max_output_tokens", "format", "tool_choice", "role"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_bad_field_is_named(client, fields, error, param, stream):
    with pytest.raises(error) as refused:
        ask(client, "Hello", **fields, stream=stream)
    assert refused.value.param == param
    assert refused.value.code and refused.value.request_id


def test_the_sdk_repeats_what_was_refused_for_a_while(mixed_gateway):
    attempts: list[int] = []
    hooks = {"response": [lambda answer: attempts.append(answer.status_code)]}
    http_client = openai.DefaultHttpxClient(event_hooks=hooks)
    with openai.OpenAI(base_url=mixed_gateway.v1, api_key=KEY, max_retries=1, http_client=http_client) as client:
        with pytest.raises(openai.RateLimitError):
            ask(client, "Hello", model=model_of("limited-openai-openai-responses"))
    assert attempts == [429, 429]
