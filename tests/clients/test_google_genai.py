"""google-genai, unmodified, against the embedded engine: the newest version, which calls `/v1`, and 1.19, which calls
`/v1beta`; with a key and as a client of Vertex AI."""

import asyncio
import json
from datetime import datetime, timedelta, timezone
from itertools import groupby
from typing import Literal

import google.auth.credentials
import pytest
from google import genai
from google.genai import errors, types
from pydantic import BaseModel

from emulators import EMBEDDED, model_of
from gateway import KEY
from shapes import HOTEL, REVIEW, Verdict, picture
from wire import CHAT, Wire, cached, system, text_of, user

WEATHER = types.FunctionDeclaration(
    name="get_weather",
    description="Tells the weather of a city.",
    parameters=types.Schema(
        type="OBJECT",
        properties={
            "city": types.Schema(type="STRING", enum=["Paris", "Rome"]),
            "days": types.Schema(type="INTEGER", minimum=1, maximum=7),
        },
        required=["city", "days"],
    ),
)


class Rating(BaseModel):
    sentiment: Literal["good", "bad"]
    recommended: bool


class Token(google.auth.credentials.Credentials):
    """Somebody who has got a token from Google, which here is the gateway's key."""

    def __init__(self):
        super().__init__()
        self.token = KEY

    def refresh(self, request):
        raise AssertionError("a token that does not expire is not refreshed")


def connect(url: str, key: str = KEY, **options) -> genai.Client:
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, **options))


@pytest.fixture(scope="module")
def client(mixed_gateway) -> genai.Client:
    return connect(mixed_gateway.url)


@pytest.fixture
def mixed_wire(mixed_gateway):
    with Wire(mixed_gateway.url) as wire:
        yield wire


@pytest.fixture
def cache(client):
    config = types.CreateCachedContentConfig(system_instruction=HOTEL, ttl="300s", display_name="the porter")
    cache = client.caches.create(model=EMBEDDED, config=config)
    yield cache
    try:
        client.caches.delete(name=cache.name)
    except errors.ClientError:
        pass


def config(**fields) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(**{"max_output_tokens": 8, "temperature": 0, **fields})


def ask(client, text, model: str = EMBEDDED, **fields):
    return client.models.generate_content(model=model, contents=text, config=config(**fields))


def forced(**fields) -> dict:
    choice = types.FunctionCallingConfig(mode="ANY", allowed_function_names=["get_weather"])
    return {
        "tools": [types.Tool(function_declarations=[WEATHER])],
        "tool_config": types.ToolConfig(function_calling_config=choice),
        "automatic_function_calling": types.AutomaticFunctionCallingConfig(disable=True),
        "max_output_tokens": 100,
        **fields,
    }


@pytest.mark.parametrize("base", ["", "/v1"])
@pytest.mark.parametrize("version", [None, "v1", "v1beta", "v1beta1"])
def test_every_path_it_is_pointed_at(mixed_gateway, base, version):
    options = {"api_version": version} if version else {}
    client = connect(mixed_gateway.url + base, **options)
    assert ask(client, "Hello").text
    assert client.models.get(model=EMBEDDED).name == f"models/{EMBEDDED}"


def test_models_are_listed_and_got(client):
    assert {f"models/{EMBEDDED}", f"models/{model_of('gemini')}"} <= {model.name for model in client.models.list()}
    model = client.models.get(model=EMBEDDED)
    assert model.input_token_limit > 0 and model.output_token_limit > 0


def test_a_plain_answer(client):
    answer = ask(client, "When is breakfast?", system_instruction=HOTEL)
    (candidate,) = answer.candidates
    assert answer.text and candidate.content.role == "model"
    assert candidate.finish_reason.name in ("STOP", "MAX_TOKENS")
    assert answer.model_version == EMBEDDED
    usage = answer.usage_metadata
    assert usage.prompt_token_count > 20 and 0 < usage.candidates_token_count <= 8
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count
    assert not usage.cached_content_token_count


def test_the_ends_of_an_answer(client):
    cut = ask(client, "Tell me a long story.", max_output_tokens=3)
    assert (cut.candidates[0].finish_reason.name, cut.usage_metadata.candidates_token_count) == ("MAX_TOKENS", 3)
    question = {"system_instruction": HOTEL, "max_output_tokens": 24}
    free = ask(client, "When is breakfast?", **question).text
    word = free.split()[3][1:]
    stopped = ask(client, "When is breakfast?", stop_sequences=["zebra", word], **question)
    assert stopped.candidates[0].finish_reason.name == "STOP"
    assert stopped.text == free[: free.index(word)]


def test_several_candidates_and_a_seed(client):
    fields = {"candidate_count": 2, "seed": 7, "temperature": 1.3}
    answer = ask(client, "Tell me a story.", **fields)
    texts = [candidate.content.parts[0].text for candidate in answer.candidates]
    assert len(texts) == 2
    again = ask(client, "Tell me a story.", **fields)
    assert texts == [candidate.content.parts[0].text for candidate in again.candidates]


def test_a_stream_says_the_same(client):
    question = {"system_instruction": HOTEL, "max_output_tokens": 10}
    whole = ask(client, "When is breakfast?", **question)
    chunks = list(
        client.models.generate_content_stream(
            model=EMBEDDED, contents="When is breakfast?", config=config(**question)
        )
    )
    assert "".join(chunk.text or "" for chunk in chunks) == whole.text
    assert sum(bool(chunk.text) for chunk in chunks) > 1
    last = chunks[-1]
    assert last.candidates[0].finish_reason == whole.candidates[0].finish_reason
    assert last.usage_metadata.total_token_count == whole.usage_metadata.total_token_count


def test_a_stream_can_be_left(client):
    stream = client.models.generate_content_stream(
        model=EMBEDDED, contents="Count upwards from one.", config=config(max_output_tokens=4000)
    )
    next(iter(stream))
    stream.close()
    assert ask(client, "Hello").text


def test_the_async_client(mixed_gateway):
    async def talk() -> tuple[str, str]:
        client = connect(mixed_gateway.url)
        question = {"model": EMBEDDED, "contents": "Say hello.", "config": config()}
        whole = await client.aio.models.generate_content(**question)
        chunks = [chunk async for chunk in await client.aio.models.generate_content_stream(**question)]
        return whole.text, "".join(chunk.text or "" for chunk in chunks)

    whole, streamed = asyncio.run(talk())
    assert whole and whole == streamed


def test_a_chat_remembers(client):
    chat = client.chats.create(model=EMBEDDED, config=config(system_instruction=HOTEL))
    first = chat.send_message("When is breakfast?")
    assert "".join(chunk.text or "" for chunk in chat.send_message_stream("And the pool?"))
    third = chat.send_message("Thank you.")
    assert third.text
    assert third.usage_metadata.prompt_token_count > first.usage_metadata.total_token_count
    # It keeps, and sends, a content for each piece of a stream.
    roles = [role for role, _ in groupby(content.role for content in chat.get_history())]
    assert roles == ["user", "model"] * 3


def test_a_forced_function_is_called_with_arguments_that_fit(client):
    answer = ask(client, "Weather in Rome?", **forced())
    (call,) = answer.function_calls
    assert call.name == "get_weather"
    assert set(call.args) == {"city", "days"}
    assert call.args["city"] in ("Paris", "Rome") and call.args["days"] in range(1, 8)
    assert answer.candidates[0].finish_reason.name == "STOP"
    chunks = client.models.generate_content_stream(
        model=EMBEDDED, contents="Weather in Rome?", config=config(**forced())
    )
    (streamed,) = [call for chunk in chunks for call in chunk.function_calls or []]
    assert (streamed.name, streamed.args) == (call.name, call.args)


def test_a_result_of_a_function_is_answered(client):
    called = ask(client, "Weather in Rome?", **forced())
    result = types.Part.from_function_response(name="get_weather", response={"result": "Sunny, 24 degrees."})
    contents = [
        types.Content(role="user", parts=[types.Part(text="Weather in Rome?")]),
        called.candidates[0].content,
        types.Content(role="user", parts=[result]),
    ]
    none = types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="NONE"))
    answer = ask(client, contents, **forced(tool_config=none, max_output_tokens=8))
    assert answer.text
    assert (
        answer.usage_metadata.prompt_token_count
        > ask(client, "Weather in Rome?").usage_metadata.prompt_token_count
    )


def test_an_answer_is_parsed_into_the_clients_own_type(client):
    # Drawn at a temperature, the text in it is now and then longer than it may be.
    fields = {"response_mime_type": "application/json", "max_output_tokens": 200, "temperature": 0}
    answer = ask(client, REVIEW, response_schema=Rating, **fields)
    assert isinstance(answer.parsed, Rating)
    assert answer.candidates[0].finish_reason.name == "STOP"


def test_one_word_of_an_enumeration(client):
    kind = types.Schema(type="STRING", enum=["good", "bad"])
    # Only Google's own models write a word of a list that is no JSON.
    with pytest.raises(errors.ClientError) as refused:
        ask(client, REVIEW, response_mime_type="text/x.enum", response_schema=kind)
    assert "responseMimeType" in refused.value.message


@pytest.mark.skipif(
    "response_json_schema" not in types.GenerateContentConfig.model_fields, reason="this version is older"
)
def test_an_answer_by_a_json_schema(client):
    schema = {"response_mime_type": "application/json", "response_json_schema": Verdict.model_json_schema()}
    Verdict.model_validate_json(ask(client, REVIEW, max_output_tokens=200, temperature=0, **schema).text)


def test_json_of_any_kind(client):
    text = 'Answer with the JSON object {"city": "Rome"} and nothing else.'
    answer = ask(client, text, response_mime_type="application/json", max_output_tokens=300)
    assert isinstance(json.loads(answer.text), dict)


def test_a_picture_is_refused_by_a_model_that_reads_text_only(client):
    with pytest.raises(errors.ClientError) as refused:
        ask(client, ["What is this?", types.Part.from_bytes(data=picture(), mime_type="image/png")])
    assert (refused.value.code, refused.value.status) == (400, "INVALID_ARGUMENT")


def test_tokens_are_counted_as_they_are_used(client):
    counted = client.models.count_tokens(model=EMBEDDED, contents="When is breakfast?")
    assert counted.total_tokens == ask(client, "When is breakfast?").usage_metadata.prompt_token_count


def test_the_life_of_a_cache(client, cache):
    assert cache.name.startswith("cachedContents/ctx-")
    assert (cache.model, cache.display_name) == (f"models/{EMBEDDED}", "the porter")
    assert cache.usage_metadata.total_token_count > 20
    assert cache.create_time <= cache.update_time < cache.expire_time
    assert abs((cache.expire_time - cache.create_time).total_seconds() - 300) < 2
    got = client.caches.get(name=cache.name)
    assert (got.name, got.model, got.expire_time) == (cache.name, cache.model, cache.expire_time)
    assert cache.name in [listed.name for listed in client.caches.list()]
    longer = client.caches.update(name=cache.name, config=types.UpdateCachedContentConfig(ttl="600s"))
    assert longer.expire_time > cache.expire_time
    later = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=2)
    moved = client.caches.update(name=cache.name, config=types.UpdateCachedContentConfig(expire_time=later))
    assert abs((moved.expire_time - later).total_seconds()) < 2
    client.caches.delete(name=cache.name)
    for gone in (
        lambda: client.caches.get(name=cache.name),
        lambda: client.caches.delete(name=cache.name),
        lambda: ask(client, "When is breakfast?", cached_content=cache.name),
    ):
        with pytest.raises(errors.ClientError) as refused:
            gone()
        assert (refused.value.code, refused.value.status) == (403, "PERMISSION_DENIED")
        assert "CachedContent not found (or permission denied)" in refused.value.message


def test_many_caches_are_listed_page_by_page(client):
    texts = [types.CreateCachedContentConfig(system_instruction=f"{HOTEL} Room {room}.") for room in range(3)]
    made = {client.caches.create(model=EMBEDDED, config=config).name for config in texts}
    pages = client.caches.list(config=types.ListCachedContentsConfig(page_size=2))
    assert made <= {listed.name for listed in pages}
    for name in made:
        client.caches.delete(name=name)


def test_an_answer_from_a_cache(client, cache):
    answer = ask(client, "When is breakfast?", cached_content=cache.name)
    usage = answer.usage_metadata
    assert usage.cached_content_token_count == cache.usage_metadata.total_token_count
    assert usage.prompt_token_count > usage.cached_content_token_count
    assert answer.text == ask(client, "When is breakfast?", system_instruction=HOTEL).text
    chunks = list(
        client.models.generate_content_stream(
            model=EMBEDDED, contents="When is breakfast?", config=config(cached_content=cache.name)
        )
    )
    assert "".join(chunk.text or "" for chunk in chunks) == answer.text
    assert chunks[-1].usage_metadata.cached_content_token_count == usage.cached_content_token_count


def test_a_cache_holds_contents_and_functions(client):
    held = types.CreateCachedContentConfig(
        system_instruction=HOTEL,
        contents=[types.Content(role="user", parts=[types.Part(text="I am in room 7.")])],
        tools=[types.Tool(function_declarations=[WEATHER])],
        tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY")),
        ttl="300s",
    )
    cache = client.caches.create(model=EMBEDDED, config=held)
    answer = ask(client, "Weather in Rome?", cached_content=cache.name, max_output_tokens=100)
    assert [call.name for call in answer.function_calls] == ["get_weather"]
    client.caches.delete(name=cache.name)


def test_what_a_cache_holds_must_not_be_sent_again(client, cache):
    for fields in ({"system_instruction": HOTEL}, {"tools": [types.Tool(function_declarations=[WEATHER])]}):
        with pytest.raises(errors.ClientError) as refused:
            ask(client, "Hello", cached_content=cache.name, **fields)
        assert (refused.value.code, refused.value.status) == (400, "INVALID_ARGUMENT")
        assert "CachedContent can not be used with GenerateContent request setting" in refused.value.message


def test_a_cache_works_with_its_own_model_only(client, cache):
    with pytest.raises(errors.ClientError) as refused:
        ask(client, "Hello", model=model_of("gemini"), cached_content=cache.name)
    assert (refused.value.code, refused.value.status) == (400, "INVALID_ARGUMENT")
    assert EMBEDDED in refused.value.message and model_of("gemini") in refused.value.message


def test_one_context_on_both_surfaces(client, cache, mixed_wire):
    body = {"model": EMBEDDED, "context_id": cache.name, "messages": [user("Hello")], "max_tokens": 8}
    answer = mixed_wire.ok("POST", CHAT, json=body | {"temperature": 0})
    assert cached(answer) == cache.usage_metadata.total_token_count
    context = mixed_wire.create(EMBEDDED, system(HOTEL))
    for name in (context["id"], f"cachedContents/{context['id']}"):
        here = ask(client, "Hello", cached_content=name)
        assert here.usage_metadata.cached_content_token_count == context["usage"]["prompt_tokens"]
        assert here.text == text_of(answer)


@pytest.mark.parametrize("with_key", [False, True], ids=["credentials", "express"])
def test_a_client_of_vertex_ai(mixed_gateway, with_key):
    identity = (
        {"api_key": KEY} if with_key else {"project": "p", "location": "us-central1", "credentials": Token()}
    )
    options = types.HttpOptions(base_url=mixed_gateway.url)
    client = genai.Client(vertexai=True, http_options=options, **identity)
    assert ask(client, "Hello").text
    chunks = client.models.generate_content_stream(model=EMBEDDED, contents="Hello", config=config())
    assert "".join(chunk.text or "" for chunk in chunks)
    assert client.models.count_tokens(model=EMBEDDED, contents="Hello").total_tokens > 0
    held = types.CreateCachedContentConfig(
        contents=[types.Content(role="user", parts=[types.Part(text=HOTEL)])], ttl="300s"
    )
    cache = client.caches.create(model=EMBEDDED, config=held)
    if not with_key:
        assert cache.name.startswith("projects/p/locations/us-central1/cachedContents/ctx-")
        assert cache.model == f"projects/p/locations/us-central1/publishers/google/models/{EMBEDDED}"
    answer = ask(client, "When is breakfast?", cached_content=cache.name)
    assert answer.usage_metadata.cached_content_token_count == cache.usage_metadata.total_token_count
    # The express client asks for `projects/None/locations/None/...`, whatever it was told.
    assert client.caches.get(name=cache.name).name.endswith(cache.name.rsplit("/", 1)[-1])
    client.caches.delete(name=cache.name)


def test_a_wrong_key(mixed_gateway):
    with pytest.raises(errors.ClientError) as refused:
        ask(connect(mixed_gateway.url, key="hf-somebody-elses-key-0000000000"), "Hello")
    assert refused.value.code in (400, 401, 403)
    assert refused.value.status in ("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED")
    assert refused.value.message


@pytest.mark.parametrize(
    ("model", "fields", "code", "status"),
    [
        ("gemini-none", {}, 404, "NOT_FOUND"),
        (EMBEDDED, {"temperature": 9}, 400, "INVALID_ARGUMENT"),
        (EMBEDDED, {"max_output_tokens": -1}, 400, "INVALID_ARGUMENT"),
        (EMBEDDED, {"cached_content": "cachedContents/ctx-20260101000000-aaaaaaaa"}, 403, "PERMISSION_DENIED"),
    ],
    ids=["model", "temperature", "max_output_tokens", "cache"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_bad_request_has_its_class(client, model, fields, code, status, stream):
    with pytest.raises(errors.ClientError) as refused:
        if stream:
            list(client.models.generate_content_stream(model=model, contents="Hello", config=config(**fields)))
        else:
            ask(client, "Hello", model=model, **fields)
    assert (refused.value.code, refused.value.status) == (code, status)
    assert refused.value.message


def test_a_server_that_is_overloaded(client):
    with pytest.raises(errors.ServerError) as failed:
        ask(client, "Hello", model=model_of("overloaded-openai"))
    assert (failed.value.code, failed.value.status) == (503, "UNAVAILABLE")


def test_the_sdk_repeats_what_was_refused_for_a_while(mixed_gateway):
    attempts: list[int] = []
    hooks = {"response": [lambda answer: attempts.append(answer.status_code)]}
    options: dict = {"client_args": {"event_hooks": hooks}}
    repeats = hasattr(types, "HttpRetryOptions")
    if repeats:
        options["retry_options"] = types.HttpRetryOptions(attempts=2, initial_delay=0.05)
    with pytest.raises(errors.ClientError) as refused:
        ask(connect(mixed_gateway.url, **options), "Hello", model=model_of("limited-openai-gemini"))
    # Version 1.19 makes one attempt.
    assert attempts == [429] * (2 if repeats else 1)
    assert (refused.value.code, refused.value.status) == (429, "RESOURCE_EXHAUSTED")
