"""The vendors' SDKs for Node, and the `ai` SDK with its providers for them, unmodified, run by the scripts in node/."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from emulators import EMBEDDED, FAMILIES, OBEDIENT, model_of
from gateway import KEY

HERE = Path(__file__).resolve().parent

# Each script's clients, with their words for the end of an answer and of one that calls tools, and their classes for
# too many requests, a wrong key and an unknown model.
SCRIPTS = {
    "openai": {
        "openai-chat": ("stop", "tool_calls", "RateLimitError", "AuthenticationError", "NotFoundError"),
        "openai-responses": ("completed", "completed", "RateLimitError", "AuthenticationError", "NotFoundError"),
    },
    "anthropic": {"anthropic": ("end_turn", "tool_use", "RateLimitError", "AuthenticationError", "NotFoundError")},
    "genai": {"gemini": ("STOP", "STOP", "ApiError", "ApiError", "ApiError")},
    "ai": {
        name: ("stop", "tool-calls", "APICallError", "APICallError", "APICallError")
        for name in ("ai-openai", "ai-openai-chat", "ai-anthropic", "ai-google")
    },
}
CLIENTS = {client: words for clients in SCRIPTS.values() for client, words in clients.items()}


@pytest.fixture(scope="module")
def everything(mixed_gateway) -> dict[str, dict]:
    """What all clients saw. The scripts run side by side."""
    assert (HERE / "node_modules" / "ai").is_dir(), "the SDKs are missing: run `npm ci` in tests/clients"
    settings = {
        "url": mixed_gateway.url,
        "key": KEY,
        "embedded": EMBEDDED,
        "obedient": model_of(OBEDIENT),
        "limited": {client: model_of(f"limited-vllm-node-{client}") for client in CLIENTS},
        "upstreams": {family: model_of(family) for family in FAMILIES},
        "prefix": "Breakfast is from seven to ten, and the pool closes at nine.",
    }
    running = {
        script: subprocess.Popen(
            ["node", f"node/{script}.mjs", json.dumps(settings)],
            cwd=HERE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for script in SCRIPTS
    }
    everything = {}
    try:
        for script, process in running.items():
            printed, complaints = process.communicate(timeout=180)
            assert process.returncode == 0, f"{script}: {complaints}"
            everything |= json.loads(printed)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return everything


@pytest.fixture(params=CLIENTS)
def seen(everything, request) -> dict:
    return everything[request.param]


@pytest.fixture
def words(request) -> tuple[str, ...]:
    return CLIENTS[request.node.callspec.params["seen"]]


def answer(seen: dict) -> dict:
    assert "error" not in seen, seen["error"]["stack"]
    return seen


def said(seen: dict) -> dict:
    """The emulated model says how many tokens it was sent, which must be what the client is told."""
    told = re.fullmatch(r"You sent me (\d+) tokens\.", answer(seen)["text"])
    assert told, seen["text"]
    assert int(told[1]) == seen["input"]
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_plain(seen, words, family):
    plain = said(seen[family]["plain"])
    assert (plain["finish"], plain["cached"], plain["calls"]) == (words[0], 0, [])


@pytest.mark.parametrize("family", FAMILIES)
def test_stream(seen, words, family):
    streamed = said(seen[family]["stream"])
    assert (streamed["finish"], streamed["cached"], streamed["calls"]) == (words[0], 0, [])
    assert streamed["pieces"] >= len(streamed["text"].split())


@pytest.mark.parametrize("family", FAMILIES)
def test_tools(seen, words, family):
    for verb in ("called", "streamedCall"):
        called = answer(seen[family][verb])
        (call,) = called["calls"]
        assert call["id"]
        assert (call["name"], call["arguments"]) == ("get_weather", {})
        assert (called["text"], called["finish"]) == ("", words[1])
    answered = said(seen[family]["answered"])
    assert answered["finish"] == words[0]
    assert answered["input"] > seen[family]["called"]["input"]


@pytest.mark.parametrize("family", FAMILIES)
def test_caching(seen, family):
    said(seen[family]["first"])
    second = said(seen[family]["second"])
    # All but the question and what is left of a block.
    assert second["input"] - 256 <= second["cached"] < second["input"]


def test_the_embedded_engine(seen, words):
    embedded = seen["embedded"]
    plain, streamed = answer(embedded["plain"]), answer(embedded["stream"])
    assert plain["text"] and plain["output"] <= 8
    # The temperature can't be set by all of them.
    assert streamed["text"] and streamed["input"] == plain["input"]
    assert streamed["pieces"] > 1
    called = answer(embedded["called"])
    (call,) = called["calls"]
    assert call["name"] == "get_weather" and set(call["arguments"]) <= {"city"}
    assert called["finish"] == words[1]


def test_structured_output(seen):
    assert answer(seen[OBEDIENT]["verdict"]) == {"sentiment": "good", "stars": 1}


def test_a_clever_model(seen, words):
    called = answer(seen[OBEDIENT]["called"])
    assert [(call["name"], call["arguments"]) for call in called["calls"]] == [("get_weather", {"city": "Paris"})]
    assert answer(seen[OBEDIENT]["answered"])["finish"] in (words[0], "length")


def test_errors_have_their_classes(seen, words):
    _, _, limited, key, model = words
    errors = seen["errors"]
    assert (errors["limited"]["error"]["name"], errors["limited"]["error"]["status"]) == (limited, 429)
    # Every one of them tries again once, as it was told.
    assert errors["limited"]["attempts"] == [429, 429]
    assert errors["key"]["error"]["name"] == key and errors["key"]["error"]["status"] in (400, 401, 403)
    assert (errors["model"]["error"]["name"], errors["model"]["error"]["status"]) == (model, 404)
