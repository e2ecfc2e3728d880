"""Every vendor's SDK against emulated upstreams of every family: what it says, streams, calls, caches and refuses."""

import re

import pytest

import dialects
from emulators import FAMILIES, model_of
from gateway import KEY

# Above the minimum of every family, tokens: 4096 is the largest.
PREFIX_TOKENS = 6000

pytestmark = [
    pytest.mark.parametrize("upstream", FAMILIES),
    pytest.mark.parametrize("client", dialects.ALL, indirect=True, ids=lambda dialect: dialect.name),
]


@pytest.fixture(scope="module")
def client(mixed_gateway, request):
    client = request.param(mixed_gateway.url, KEY)
    yield client
    client.close()


def said(seen: dialects.Seen) -> None:
    """The emulated model says how many tokens it was sent, which must be what the client is told."""
    told = re.fullmatch(r"You sent me (\d+) tokens\.", seen.text)
    assert told, seen.text
    assert int(told[1]) == seen.input
    # The emulators count a token for four bytes begun.
    assert seen.output == -(-len(seen.text) // 4)


def test_plain(client, upstream):
    seen = client.plain(model_of(upstream), "Hello there, who are you?")
    said(seen)
    assert (seen.finish, seen.cached, seen.calls) == (client.finish, 0, [])


def test_stream(client, upstream):
    seen = client.stream(model_of(upstream), "Hello there, who are you?")
    said(seen)
    assert (seen.finish, seen.cached, seen.calls) == (client.finish, 0, [])
    # The model says a word at a time, and what comes is not held back to the end.
    assert seen.pieces >= len(seen.text.split())


def test_pictures(client, upstream):
    seen = client.see(model_of(upstream))
    said(seen)
    # It was not lost: the emulators take a picture for many tokens.
    assert seen.input > client.plain(model_of(upstream), dialects.PICTURE_QUESTION).input + 20


def test_documents(client, upstream):
    if upstream == "vllm":
        with pytest.raises(dialects.error_of(client, 400), match="document"):
            client.read(model_of(upstream))
        return
    seen = client.read(model_of(upstream))
    said(seen)
    assert seen.input > client.plain(model_of(upstream), dialects.DOCUMENT_QUESTION).input + 20


def test_reasoning(client, upstream):
    """Each upstream is asked in its own words, which its emulator checks."""
    seen = client.think(model_of(upstream))
    said(seen)
    assert seen.finish == client.finish


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_tools(client, upstream, streamed):
    called = client.call(model_of(upstream), streamed=streamed)
    (call,) = called.calls
    assert (call.name, call.arguments) == (dialects.TOOL, {})
    assert call.id
    assert (called.text, called.finish) == ("", client.finish_tools)
    answered = client.answer_call(model_of(upstream), called)
    said(answered)
    assert answered.finish == client.finish
    assert answered.input > called.input


def rules(*names: str) -> str:
    """A long text that nobody else has cached, whatever ran before."""
    line = f"Rule for guests of {' and '.join(names)}: breakfast is from seven to ten. "
    return (line * (PREFIX_TOKENS * 4 // len(line) + 1))[: PREFIX_TOKENS * 4]


def test_caching(client, upstream):
    with client.cached(model_of(upstream), rules(client.name, upstream)) as ask:
        first = ask("When is breakfast?")
        second = ask("And on Sundays, when is it then?")
    said(first)
    said(second)
    assert first.input > PREFIX_TOKENS
    # What is cached ends at the marker, or at whole blocks before or after it; never in the new question.
    assert PREFIX_TOKENS - 128 <= second.cached < second.input
    if client.name == "gemini" and upstream in ("gemini", "ark"):
        # Where a cache is a thing by itself, it was there before the first question.
        assert PREFIX_TOKENS - 128 <= first.cached < first.input


def test_a_conversation_is_cached_as_it_grows(client, upstream):
    with client.conversation(model_of(upstream), rules("talk", client.name, upstream)) as say:
        for text in ("When is breakfast?", "And on Sundays?"):
            said(say(text))
        third = say("And on holidays?")
    said(third)
    assert PREFIX_TOKENS - 128 <= third.cached < third.input


@pytest.mark.parametrize(("fault", "status"), [("limited", 429), ("overloaded", 503)])
def test_failures(client, upstream, fault, status):
    refusing = f"{fault}-{upstream}-{client.name}" if fault == "limited" else f"{fault}-{upstream}"
    with pytest.raises(dialects.error_of(client, status)) as failed:
        client.plain(model_of(refusing), "Hello")
    assert dialects.status_of(failed.value) == status


def test_a_stream_that_breaks(client, upstream):
    """In the midst of the answer the upstream reports an error, which every SDK passes on in its own way."""
    with pytest.raises(client.broken):
        client.stream(model_of(f"breaking-{upstream}"), "Hello")
    assert client.heard > 0
