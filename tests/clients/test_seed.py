"""The requests of the founding specification, byte for byte."""

import json

import httpx
import pytest

from gateway import GEMINI, KEY
from wire import CHAT, CREATE, cached, text_of, user

SEED_HTTP = """{
"model": "gemini-2.0-flash",
"messages": [
{
"role": "system",
"content": "请扮演一位友好的客服。... 不少于4096tokens ..."
},
{
"role": "user",
"content": "你好"
}
],
"ttl": 300
}"""

# What a shell makes of the seed's curl command.
SEED_CURL = """{
"model": "gemini-2.0-flash",
"messages": [{
"role": "system",
"content": "请扮演一位友好的客服。... 不少于4096tokens ..."
},
{
"role": "user",
"content": "你好"
}
],
"ttl": 300
}"""

SEED_GO = """{
"model": "gemini-2.0-flash",
"messages": [{
"role": "system",
"content": "请扮演一位友好的客服。... 不少于4096tokens ..."
},
{
"role": "user",
"content": "你好"
}
],
"mode": "session",
"ttl": 3600
}"""

HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


def create(wire, body: str) -> dict:
    answer = wire.post(CREATE, content=body.encode(), headers=HEADERS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    return answer.json()


def chat(wire, context_id: str, **fields) -> tuple[dict, str]:
    body = {"model": GEMINI, "context_id": context_id, "messages": [user("你能帮我什么?")], "max_tokens": 12}
    answer = wire.post(CHAT, json=body | fields)
    assert answer.status_code == 200, answer.text
    return answer.json(), answer.headers["x-context-cache"]


def is_in_seed_shape(created: dict, ttl: int) -> None:
    assert isinstance(created["id"], str) and created["id"]
    assert created["ttl"] == ttl and isinstance(created["ttl"], int)
    usage = created["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] == 0
    assert usage["total_tokens"] == 0
    # A test before may have stored the same content; nothing is written twice.
    assert usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"] == usage["prompt_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": usage["cache_read_input_tokens"]}
    assert created["object"] == "context"
    assert created["model"] == GEMINI
    assert created["expires_at"] - created["created"] == ttl


@pytest.mark.parametrize("body", [SEED_HTTP, SEED_CURL], ids=["http", "curl"])
def test_the_seeds_request_makes_a_prefix_that_chats_use(wire, body):
    created = create(wire, body)
    is_in_seed_shape(created, 300)
    assert created["mode"] == "common_prefix"
    assert "truncation_strategy" not in created

    for _ in range(2):
        answer, cache = chat(wire, created["id"])
        assert cache.split(";")[0] == "hit"
        assert cached(answer) == created["usage"]["prompt_tokens"]
        assert answer["usage"]["prompt_tokens"] > cached(answer)
        assert answer["context_cache"]["status"] == "hit"
    assert wire.context(created["id"])["turns"] == 0


def test_the_seeds_go_program_makes_a_session_that_remembers(wire):
    created = create(wire, SEED_GO)
    is_in_seed_shape(created, 3600)
    assert created["mode"] == "session"
    assert created["truncation_strategy"] == {"type": "rolling_tokens", "rolling_tokens": True}

    first, cache = chat(wire, created["id"])
    assert cache.split(";")[0] == "hit"
    assert cached(first) == created["usage"]["prompt_tokens"]
    second, cache = chat(wire, created["id"])
    assert cache.split(";")[0] == "hit"
    assert cached(second) > cached(first)
    assert wire.context(created["id"])["turns"] == 2


def test_the_seeds_request_with_a_text_as_long_as_it_says(wire, long_text):
    body = json.loads(SEED_CURL)
    body["messages"][0]["content"] = long_text
    created = create(wire, json.dumps(body, ensure_ascii=False))
    is_in_seed_shape(created, 300)
    tokens = created["usage"]["prompt_tokens"]
    assert tokens > 4096

    answer, cache = chat(wire, created["id"], temperature=0)
    assert cache.split(";")[0] == "hit"
    assert cached(answer) == tokens
    receipt = answer["context_cache"]
    assert receipt["prefix_tokens"] == receipt["cached_tokens"] == tokens
    assert text_of(answer)

    # The same text again costs nothing, and gives the same answer.
    again = create(wire, json.dumps(body, ensure_ascii=False))
    assert again["id"] != created["id"]
    assert again["usage"]["cache_creation_input_tokens"] == 0
    assert again["usage"]["cache_read_input_tokens"] == tokens
    assert text_of(chat(wire, again["id"], temperature=0)[0]) == text_of(answer)


def test_every_form_of_the_id_is_understood(wire):
    created = create(wire, SEED_CURL)
    for form in ["{}", "cachedContents/{}", "projects/37021971161/locations/global/cachedContents/{}"]:
        answer, cache = chat(wire, form.format(created["id"]))
        assert cache.split(";")[0] == "hit"
        assert answer["context_cache"]["context_id"] == created["id"]


@pytest.mark.parametrize("name", ["x-api-key", "x-goog-api-key"])
def test_the_key_is_taken_from_other_headers_too(gateway, name):
    answer = httpx.post(gateway.url + CREATE, content=SEED_CURL.encode(), headers={name: KEY}, timeout=180)
    assert answer.status_code == 200, answer.text
