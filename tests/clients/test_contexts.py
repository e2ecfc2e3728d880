"""What a context does over its life, as raw HTTP shows it."""

import threading
import time

import httpx
import openai
import pytest

from gateway import DOUBAO, GEMINI, KEY, NATIVE
from wire import CHAT, CREATE, NEVER_END, Wire, cached, events, system, text_of, user

UNKNOWN = "ctx-20260101000000-aaaaaaaaaaaaaaaaaaaaaaaaaa"

# Some fifty tokens, so that a few turns fill a small window.
LONG_QUESTION = "Please repeat after me, word for word: " + "the quick brown fox jumps over the lazy dog, " * 4


def error_of(answer: httpx.Response) -> dict:
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "param", "type"}
    return error


def until_gone(wire: Wire, context_id: str) -> None:
    """Asks until the context is gone. The deadline only guards against hanging."""
    deadline = time.monotonic() + 60
    while wire.get(f"/v1/context/{context_id}").status_code == 200:
        assert time.monotonic() < deadline, "the context does not expire"


def test_lists_are_paged_newest_first(wire):
    made = [
        wire.create(GEMINI, system(f"You are number {number}."), display_name=f"page-{number}") for number in range(3)
    ]
    first = wire.ok("GET", "/v1/context", params={"limit": 2})
    assert first["object"] == "list"
    assert [context["id"] for context in first["data"]] == [made[2]["id"], made[1]["id"]]
    assert first["data"][0]["display_name"] == "page-2"
    assert first["has_more"] is True
    second = wire.ok("GET", "/v1/context", params={"limit": 2, "after": first["next_cursor"]})
    assert second["data"][0]["id"] == made[0]["id"]
    ids = [context["id"] for context in wire.contexts()]
    assert len(ids) == len(set(ids))
    assert error_of(wire.get("/v1/context", params={"limit": "many"}))["param"] == "limit"


def test_a_context_is_shown_extended_and_deleted(wire):
    created = wire.create(GEMINI, system("You are a clerk."), ttl=60, display_name="clerk", metadata={"team": "post"})
    shown = wire.context(created["id"])
    assert shown["display_name"] == "clerk"
    assert shown["metadata"] == {"team": "post"}
    assert (shown["ttl"], shown["turns"]) == (60, 0)
    assert shown["prefix_tokens"] == shown["initial_tokens"] == created["usage"]["prompt_tokens"]
    assert "messages" not in shown and "usage" not in shown

    extended = wire.ok("PATCH", f"/v1/context/{created['id']}", json={"ttl": "7200s"})
    assert extended["ttl"] == 7200
    assert extended["expires_at"] >= created["created"] + 7200
    refused = wire.patch(f"/v1/context/{created['id']}", json={"ttl": 0})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "ttl")
    assert wire.context(created["id"])["ttl"] == 7200

    deleted = wire.ok("DELETE", f"/v1/context/{created['id']}")
    assert deleted == {"id": created["id"], "object": "context.deleted", "deleted": True}
    assert wire.get(f"/v1/context/{created['id']}").status_code == 404
    assert wire.delete(f"/v1/context/{created['id']}").status_code == 404
    assert created["id"] not in [context["id"] for context in wire.contexts()]


def use_for_a_second(wire: Wire, created: dict) -> None:
    """At least once, and until the clock shows another second than at create."""
    while True:
        wire.ask(created["id"], "Hello", max_tokens=1)
        if time.time() >= created["created"] + 2:
            return


def test_a_fixed_expiry_stays_however_much_the_context_is_used(wire):
    created = wire.create(GEMINI, system("You are brief."), ttl=600)
    use_for_a_second(wire, created)
    assert wire.context(created["id"])["expires_at"] == created["expires_at"]


def test_a_sliding_expiry_moves_with_each_use(wire):
    created = wire.create(GEMINI, system("You are brief."), mode="session", ttl=600)
    use_for_a_second(wire, created)
    used = wire.context(created["id"])
    assert used["expires_at"] > created["expires_at"]
    assert (used["ttl"], used["created"]) == (600, created["created"])


@pytest.mark.parametrize("mode", ["common_prefix", "session"])
def test_an_expired_context_is_gone(wire, mode):
    created = wire.create(GEMINI, system("You are brief."), mode=mode, ttl=1)
    until_gone(wire, created["id"])
    assert time.time() >= created["expires_at"]
    answer = wire.post(CHAT, json={"context_id": created["id"], "messages": [user("Hello")]})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "NotFound.context_id")


def test_unknown_expired_deleted_and_foreign_contexts_look_alike(gateway, wire, stranger_key):
    expired = wire.create(GEMINI, system("You are brief."), ttl=1)["id"]
    deleted = wire.create(GEMINI, system("You are brief."))["id"]
    wire.ok("DELETE", f"/v1/context/{deleted}")
    mine = wire.create(GEMINI, system("You are mine."))["id"]
    until_gone(wire, expired)

    with Wire(gateway.url, stranger_key) as stranger:
        cases = [(wire, UNKNOWN), (wire, expired), (wire, deleted), (wire, "nonsense"), (stranger, mine)]
        requests = [
            lambda client, name: client.get(f"/v1/context/{name}"),
            lambda client, name: client.delete(f"/v1/context/{name}"),
            lambda client, name: client.patch(f"/v1/context/{name}", json={"ttl": 60}),
            lambda client, name: client.post(f"/v1/context/{name}/fork"),
            lambda client, name: client.post(
                CHAT, json={"model": GEMINI, "context_id": name, "messages": [user("Hello")]}
            ),
            lambda client, name: client.post(
                "/api/v3/context/chat/completions",
                json={"model": GEMINI, "context_id": name, "messages": [user("Hello")], "stream": True},
            ),
        ]
        for request in requests:
            answers = [request(client, name) for client, name in cases]
            assert {answer.status_code for answer in answers} == {404}
            assert len({answer.content for answer in answers}) == 1
            names = [sorted(set(answer.headers) - {"date"}) for answer in answers]
            assert all(name == names[0] for name in names)
        assert stranger.contexts() == []
    assert wire.context(mine)["id"] == mine


def test_equal_content_of_another_project_is_not_found_in_the_cache(gateway, wire, stranger_key):
    messages = (system("The combination of the safe is 7-7-4-1."), user("Understood?"))
    first = wire.create(GEMINI, *messages)
    assert wire.create(GEMINI, *messages)["usage"]["cache_read_input_tokens"] == first["usage"]["prompt_tokens"]
    with Wire(gateway.url, stranger_key) as stranger:
        foreign = stranger.create(GEMINI, *messages)
        assert foreign["usage"]["cache_read_input_tokens"] == 0
        stranger.ok("DELETE", f"/v1/context/{foreign['id']}")


def test_a_second_turn_at_the_same_time_is_refused(wire):
    session = wire.session(GEMINI)
    with wire.running_turn(session, max_tokens=25) as chunks:
        refused = wire.post(CHAT, json={"context_id": session, "messages": [user("Hello")]})
        assert refused.status_code == 403
        assert refused.headers["x-should-retry"] == "true"
        error = error_of(refused)
        assert error["code"] == "OperationDenied.InvalidState"
        assert "InProgress" in error["message"]
        assert [*chunks][-1]["choices"][0]["finish_reason"] == "length"
    assert wire.context(session)["turns"] == 1


def test_an_aborted_turn_leaves_the_session_as_it_was_and_free(gateway, wire):
    session, twin = wire.session(GEMINI), wire.session(GEMINI)
    before = wire.context(session)
    # A connection of its own, which the abort closes.
    with Wire(gateway.url) as leaving, leaving.running_turn(session, max_tokens=4000):
        pass
    deadline = time.monotonic() + 60
    while True:
        answer = wire.post(
            CHAT, json={"context_id": session, "messages": [user("Hello")], "max_tokens": 6, "temperature": 0}
        )
        if answer.status_code == 200:
            break
        assert answer.status_code == 403, answer.text
        assert time.monotonic() < deadline, "the session stays locked"
    after = wire.context(session)
    assert (before["turns"], after["turns"]) == (0, 1)
    expected = wire.ask(twin, "Hello")
    assert text_of(answer.json()) == text_of(expected)
    assert answer.json()["usage"]["prompt_tokens"] == expected["usage"]["prompt_tokens"]
    assert after["prefix_tokens"] == wire.context(twin)["prefix_tokens"]


def test_a_failed_turn_leaves_the_session_as_it_was(wire):
    session = wire.session(GEMINI)
    refused = wire.post(CHAT, json={"context_id": session, "messages": [user("word " * 9000)]})
    assert (refused.status_code, error_of(refused)["code"]) == (400, "OutofContextError")
    assert wire.context(session)["turns"] == 0
    wire.ask(session, "Hello")
    assert wire.context(session)["turns"] == 1


def test_a_failed_create_leaves_nothing_behind(wire):
    before = [context["id"] for context in wire.contexts()]
    for body in (
        {"model": GEMINI, "messages": [user("word " * 9000)]},
        {"model": GEMINI, "messages": [user("Hi")], "ttl": -5},
        {"model": GEMINI, "messages": []},
        {"model": GEMINI, "messages": [{"role": "user"}]},
        {"model": GEMINI, "messages": [user("Hi")], "mode": "sesion"},
        {"messages": [user("Hi")]},
    ):
        refused = wire.post(CREATE, json=body)
        assert refused.status_code == 400, body
        assert error_of(refused)["code"]
    assert [context["id"] for context in wire.contexts()] == before


def test_malformed_json_is_located(wire):
    refused = wire.post(CREATE, content='{"model": "gemini-2.0-flash",\n "messages": [}')
    assert refused.status_code == 400
    message = error_of(refused)["message"]
    assert "line 2" in message and "column" in message


def test_last_history_tokens_bounds_what_is_remembered(wire):
    session = wire.session(
        DOUBAO, ttl=3600, truncation_strategy={"type": "last_history_tokens", "last_history_tokens": 150}
    )
    initial = wire.context(session)["initial_tokens"]
    answers = [wire.ask(session, LONG_QUESTION, max_tokens=2) for _ in range(5)]
    fresh = answers[0]["usage"]["prompt_tokens"] - initial
    assert 50 < fresh < 75, "the question does not fit the numbers of this test"
    prompts = [answer["usage"]["prompt_tokens"] for answer in answers]
    # Three turns would be more than the capacity, so two are remembered at most.
    assert prompts[1] > prompts[0]
    assert all(prompt <= initial + 150 + fresh for prompt in prompts)
    assert prompts[3] == prompts[4]
    assert all(cached(answer) >= initial for answer in answers)
    assert wire.context(session)["turns"] == 5


def test_a_rolling_trim_reports_no_cached_tokens_once(wire):
    session = wire.session(
        DOUBAO,
        ttl=3600,
        truncation_strategy={
            "type": "rolling_tokens",
            "rolling_tokens": True,
            "max_window_tokens": 240,
            "rolling_window_tokens": 80,
        },
    )
    created = wire.context(session)
    assert created["truncation_strategy"]["max_window_tokens"] == 240
    initial = created["initial_tokens"]
    answers = []
    while not answers or cached(answers[-1]) > 0:
        assert len(answers) < 10, "the window is never trimmed"
        answers.append(wire.ask(session, LONG_QUESTION, max_tokens=2))
    assert len(answers) > 2
    grown, trimmed = answers[-2], answers[-1]
    assert trimmed["usage"]["prompt_tokens"] < grown["usage"]["prompt_tokens"]
    assert trimmed["usage"]["prompt_tokens"] > initial
    assert trimmed["context_cache"]["reason"] == "truncated"
    after = wire.ask(session, LONG_QUESTION, max_tokens=2)
    assert cached(after) > initial
    assert wire.context(session)["turns"] == len(answers) + 1


def test_without_rolling_a_full_window_ends_the_answer(small_gateway):
    window = 1024
    with Wire(small_gateway.url) as wire:
        session = wire.session(
            NATIVE, "word " * 950, truncation_strategy={"type": "rolling_tokens", "rolling_tokens": False}
        )
        answer = wire.ask(session, "Go on.", max_tokens=900, logit_bias=NEVER_END)
        wire.ok("DELETE", f"/v1/context/{session}")
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] < 900
    assert window - 2 <= answer["usage"]["total_tokens"] <= window


def test_a_prefix_forks_into_a_session(wire):
    parent = wire.create(GEMINI, system("You sell tickets for the night train."), ttl=600)
    forked = wire.ok("POST", f"/v1/context/{parent['id']}/fork")
    assert forked["id"] != parent["id"]
    assert (forked["mode"], forked["ttl"]) == ("session", 600)
    assert forked["forked_from"] == {"id": parent["id"], "at_turn": 0}
    assert forked["usage"]["cache_read_input_tokens"] == parent["usage"]["prompt_tokens"]
    assert forked["usage"]["cache_creation_input_tokens"] == 0

    expected = wire.ask(parent["id"], "One ticket, please.", max_tokens=12)
    answer = wire.ask(forked["id"], "One ticket, please.", max_tokens=12)
    assert answer["context_cache"]["status"] == "hit"
    assert cached(answer) == parent["usage"]["prompt_tokens"]
    assert text_of(answer) == text_of(expected)
    assert wire.context(forked["id"])["turns"] == 1
    assert wire.context(parent["id"])["turns"] == 0


def test_a_session_forks_from_any_turn_and_goes_its_own_way(wire):
    parent = wire.session(GEMINI, "You count sheep.")
    after = [wire.context(parent)["prefix_tokens"]]
    for number in range(1, 4):
        wire.ask(parent, f"Sheep number {number}.")
        after.append(wire.context(parent)["prefix_tokens"])

    forks = {}
    for turn in range(4):
        forks[turn] = wire.ok("POST", f"/v1/context/{parent}/fork", json={"at_turn": turn})["id"]
        child = wire.context(forks[turn])
        assert (child["turns"], child["prefix_tokens"]) == (turn, after[turn])
        assert child["forked_from"] == {"id": parent, "at_turn": turn}
    last = wire.context(wire.ok("POST", f"/v1/context/{parent}/fork", json={})["id"])
    assert (last["turns"], last["prefix_tokens"]) == (3, after[3])

    # A child repeats its parent's history, because nothing but the history makes the answer.
    replayed = wire.session(GEMINI, "You count sheep.")
    wire.ask(replayed, "Sheep number 1.")
    assert text_of(wire.ask(forks[1], "How many?", max_tokens=12)) == text_of(
        wire.ask(replayed, "How many?", max_tokens=12)
    )
    # And it outlives its parent, unchanged by it.
    wire.ok("DELETE", f"/v1/context/{parent}")
    answer = wire.ask(forks[2], "How many?")
    assert cached(answer) == after[2]
    assert wire.context(forks[2])["turns"] == 3
    assert wire.context(forks[3])["turns"] == 3


def test_a_prefix_answers_alike_before_and_after_its_siblings_go_on(wire):
    """Where the state comes from, and what else has grown from it, makes no difference to the words."""
    question, parent = "When does the library close on Fridays?", wire.session(GEMINI, "You are a librarian.")
    wire.ask(parent, "Good morning.")
    prefix = wire.ok("POST", f"/v1/context/{parent}/fork", json={"mode": "common_prefix"})["id"]
    answers = [text_of(wire.ask(prefix, question, max_tokens=12))]
    for _ in range(2):
        sibling = wire.ok("POST", f"/v1/context/{parent}/fork")["id"]
        answers.append(text_of(wire.ask(sibling, question, max_tokens=12)))
        answers.append(text_of(wire.ask(prefix, question, max_tokens=12)))
    assert len(set(answers)) == 1, answers


def test_a_fork_beyond_the_last_turn_is_refused(wire):
    session = wire.session(GEMINI)
    refused = wire.post(f"/v1/context/{session}/fork", json={"at_turn": 1})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "at_turn")


def test_a_repeated_idempotency_key_is_one_turn(wire):
    session = wire.session(GEMINI)
    body = {"context_id": session, "messages": [user("Hello")], "max_tokens": 6, "temperature": 1}
    answers = [wire.post(CHAT, json=body, headers={"Idempotency-Key": "turn-1"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert wire.context(session)["turns"] == 1
    wire.ok("POST", CHAT, json=body, headers={"Idempotency-Key": "turn-2"})
    assert wire.context(session)["turns"] == 2


def test_the_clients_request_id_comes_back(wire):
    answer = wire.get("/v1/models", headers={"X-Client-Request-Id": "client-1"})
    assert answer.headers["x-client-request-id"] == "client-1"
    assert answer.headers["x-request-id"]


def test_a_revoked_key_is_refused_at_once(gateway, wire):
    made = wire.ok("POST", "/admin/v1/keys", json={"label": "short-lived"})
    with Wire(gateway.url, made["key"]) as holder:
        assert holder.get("/v1/models").status_code == 200
        assert holder.get("/admin/v1/keys").status_code == 403
        wire.ok("DELETE", f"/admin/v1/keys/{made['id']}")
        assert holder.get("/v1/models").status_code == 401


def test_monitoring_needs_no_key(gateway):
    with httpx.Client(base_url=gateway.url) as anybody:
        assert anybody.get("/healthz").json()["status"] == "ok"
        assert anybody.get("/readyz").json()["status"] == "ok"
        assert "holdfast" in anybody.get("/metrics").text
        paths = anybody.get("/openapi.json").json()["paths"]
        assert {"/v1/context/create", "/v1/chat/completions", "/v1/context/{id}/fork"} <= set(paths)
        assert anybody.get("/v1/models").status_code == 401


class TestLimits:
    """On the server with low limits."""

    @pytest.fixture
    def wire(self, small_gateway):
        with Wire(small_gateway.url) as wire:
            yield wire
            for context in wire.contexts():
                wire.ok("DELETE", f"/v1/context/{context['id']}")

    def test_a_busy_session_is_waited_for_where_the_config_says_so(self, small_gateway, wire):
        session = wire.session(NATIVE)
        with Wire(small_gateway.url) as other, other.running_turn(session, max_tokens=30) as chunks:
            # One attempt, no refusal: the server holds it until the turn before it has ended.
            answer = wire.ask(session, "Hello")
            assert [*chunks][-1]["choices"][0]["finish_reason"] == "length"
        assert cached(answer) > 0
        assert wire.context(session)["turns"] == 2

    def test_too_many_contexts_are_a_rate_limit_error(self, small_gateway, wire):
        made = [wire.create(NATIVE, system(f"You are number {number}."))["id"] for number in range(4)]
        with openai.OpenAI(base_url=small_gateway.v1, api_key=KEY, max_retries=0) as client:
            with pytest.raises(openai.RateLimitError) as refused:
                client.post(
                    "/context/create", cast_to=object, body={"model": NATIVE, "messages": [user("One too many")]}
                )
        assert refused.value.code
        wire.ok("DELETE", f"/v1/context/{made[0]}")
        wire.create(NATIVE, user("Now it fits"))

    def test_a_full_queue_is_a_rate_limit_error_at_once(self, small_gateway, wire):
        prefix = wire.create(NATIVE, system("You are brief."))["id"]
        with (
            Wire(small_gateway.url) as first,
            Wire(small_gateway.url) as second,
            first.running_turn(prefix, max_tokens=4000),
        ):
            # The only slot is taken; the next request waits, and the one after that can't even do this.
            body = {"model": NATIVE, "messages": [user("Hello")], "max_tokens": 1}
            waiting = threading.Thread(target=lambda: second.post(CHAT, json=body))
            waiting.start()
            deadline = time.monotonic() + 60
            while not any(
                line.startswith("holdfast_engine_queued_requests") and line.endswith(" 1")
                for line in wire.get("/metrics").text.splitlines()
            ):
                assert time.monotonic() < deadline, "nothing is queued"
            with openai.OpenAI(base_url=small_gateway.v1, api_key=KEY, max_retries=0) as client:
                with pytest.raises(openai.RateLimitError) as refused:
                    client.chat.completions.create(model=NATIVE, messages=[user("Hello")])
            assert refused.value.code == "ServerOverloaded"
            assert int(refused.value.response.headers["retry-after"]) >= 1
            # The running answer is aborted, and the one that waits has its turn.
            first.close()
            waiting.join()

    def test_a_body_beyond_the_limit_is_refused(self, wire):
        refused = wire.post(CREATE, json={"model": NATIVE, "messages": [user("x" * 70_000)]})
        assert refused.status_code == 413
        assert error_of(refused)["code"] == "RequestBodyTooLarge"
        assert wire.get("/v1/models").status_code == 200


def test_a_stream_of_an_ended_session_turn_is_committed_before_its_end_is_seen(gateway, wire):
    session = wire.session(GEMINI)
    body = {"context_id": session, "messages": [user("Hello")], "max_tokens": 5, "stream": True}
    with Wire(gateway.url) as streaming, streaming.stream("POST", CHAT, json=body) as answer:
        for chunk in events(answer):
            if chunk["choices"] and chunk["choices"][0]["finish_reason"]:
                assert wire.context(session)["turns"] == 1
                break
        else:
            pytest.fail("the answer has no end")
