"""Plain HTTP against the gateway, for what SDKs hide: headers, raw bodies, single attempts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from gateway import KEY

# The embedded model may end an answer whenever it likes. Forbidding its end tokens makes an answer exactly as long as
# `max_tokens` says, which is what a test that needs a running answer depends on.
NEVER_END = {"0": -100, "2": -100}

CHAT = "/v1/chat/completions"
CREATE = "/v1/context/create"


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def system(text: str) -> dict:
    return {"role": "system", "content": text}


class Wire(httpx.Client):
    """A client with a key that makes each request once."""

    def __init__(self, url: str, key: str = KEY):
        super().__init__(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=180)

    def ok(self, method: str, path: str, **arguments) -> dict:
        answer = self.request(method, path, **arguments)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def create(self, model: str, *messages: dict, **fields) -> dict:
        return self.ok("POST", CREATE, json={"model": model, "messages": list(messages), **fields})

    def session(self, model: str, text: str = "You answer in one short sentence.", **fields) -> str:
        return self.create(model, system(text), mode="session", **fields)["id"]

    def ask(self, context_id: str, text: str, **fields) -> dict:
        """A short answer that depends on nothing but the prompt."""
        body = {"context_id": context_id, "messages": [user(text)], "max_tokens": 6, "temperature": 0, **fields}
        return self.ok("POST", CHAT, json=body)

    def context(self, context_id: str) -> dict:
        return self.ok("GET", f"/v1/context/{context_id}")

    def contexts(self) -> list[dict]:
        """All of them, page by page."""
        found, cursor = [], None
        while True:
            query = {"limit": 100} | ({"cursor": cursor} if cursor else {})
            page = self.ok("GET", "/v1/context", params=query)
            found += page["data"]
            cursor = page["next_cursor"]
            assert page["has_more"] == (cursor is not None)
            if cursor is None:
                return found

    @contextmanager
    def running_turn(self, context_id: str, max_tokens: int) -> Iterator[Iterator[dict]]:
        """A turn whose first token has come and whose end is at least `max_tokens` away. Leaving it early aborts it."""
        body = {
            "context_id": context_id,
            "messages": [user("Count upwards from one.")],
            "max_tokens": max_tokens,
            "logit_bias": NEVER_END,
            "temperature": 0,
            "stream": True,
        }
        with self.stream("POST", CHAT, json=body) as answer:
            assert answer.status_code == 200, answer.read()
            chunks = events(answer)
            next(chunks)
            yield chunks


def events(answer: httpx.Response) -> Iterator[dict]:
    """The chunks of a stream that must end as streams do."""
    is_done = False
    for line in answer.iter_lines():
        if not line or line.startswith(":"):
            continue
        assert not is_done, f"something follows the end: {line}"
        assert line.startswith("data: "), line
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            is_done = True
        else:
            chunk = json.loads(data)
            assert "error" not in chunk, chunk
            yield chunk
    assert is_done, "the stream was cut short"


def cached(answer: dict) -> int:
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def text_of(answer: dict) -> str:
    return answer["choices"][0]["message"]["content"]
