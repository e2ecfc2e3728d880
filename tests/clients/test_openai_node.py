"""openai-node, unmodified, run by node/chat.mjs."""

import json
import subprocess
from pathlib import Path

import pytest

from gateway import GEMINI, KEY
from wire import Wire, system

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def seen(gateway) -> dict:
    assert (HERE / "node_modules" / "openai").is_dir(), "openai-node is missing: run `npm ci` in tests/clients"
    with Wire(gateway.url) as wire:
        context = wire.create(GEMINI, system("You are the porter. Breakfast is from seven to ten."))
    ran = subprocess.run(
        ["node", "node/chat.mjs", gateway.v1, KEY, GEMINI, context["id"]],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout) | {"context": context}


def test_models_are_listed(seen):
    assert GEMINI in seen["models"]


def test_a_plain_chat(seen):
    plain = seen["plain"]
    assert plain["choices"][0]["message"]["content"]
    assert plain["usage"]["total_tokens"] == plain["usage"]["prompt_tokens"] + plain["usage"]["completion_tokens"]
    assert "context_cache" not in plain


def test_a_chat_with_a_context(seen):
    answer = seen["withContext"]
    assert seen["receipt"].split(";")[0] == "hit"
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == seen["context"]["usage"]["prompt_tokens"]
    assert answer["context_cache"]["context_id"] == seen["context"]["id"]


def test_streams_say_the_same_and_end_with_usage(seen):
    expected = seen["withContext"]
    assert seen["streamed"]["text"] == seen["helper"] == expected["choices"][0]["message"]["content"]
    assert seen["streamed"]["finishReasons"] == [expected["choices"][0]["finish_reason"]]
    assert seen["streamed"]["usage"] == expected["usage"]
    assert seen["streamed"]["choicesBesideUsage"] == 0


def test_a_stream_can_be_left(seen):
    assert seen["chunksBeforeAbort"] == 3


@pytest.mark.parametrize(
    ("case", "name", "status", "code", "param"),
    [
        ("context", "NotFoundError", 404, "NotFound.context_id", "context_id"),
        ("field", "BadRequestError", 400, "InvalidParameter.temperature", "temperature"),
        ("key", "AuthenticationError", 401, "AuthenticationError", None),
    ],
)
def test_errors_have_their_classes(seen, case, name, status, code, param):
    error = seen["errors"][case]
    assert (error["name"], error["status"], error["code"], error["param"]) == (name, status, code, param)
    assert error["requestID"]
