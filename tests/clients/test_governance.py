"""What a platform team decides about keys and projects, as unmodified SDKs meet it."""

import threading

import pytest

import dialects
from emulators import FAMILIES, model_of
from wire import CHAT, Wire, user


@pytest.fixture(scope="module")
def admin(mixed_gateway):
    with Wire(mixed_gateway.url) as wire:
        yield wire


def key_of(admin: Wire, project: str, settings: dict, **fields) -> str:
    """The secret of a new key in a project with these settings."""
    admin.ok("POST", "/admin/v1/projects", json={"name": project, **settings})
    return admin.ok("POST", "/admin/v1/keys", json={"project": project, **fields})["key"]


def refused(dialect, call, status: int) -> Exception:
    """What the SDK raises for a status that it has no class of its own for."""
    broken = dialects.error_of(dialect, status) if isinstance(dialect, dialects.Gemini) else dialect.sdk.APIStatusError
    with pytest.raises(broken) as failed:
        call()
    assert dialects.status_of(failed.value) == status
    return failed.value


@pytest.mark.parametrize("dialect", dialects.ALL, ids=lambda dialect: dialect.name)
def test_a_budget_that_is_used_up(mixed_gateway, admin, dialect):
    project = f"broke-{dialect.name}"
    key = key_of(admin, project, {"budgets": [{"period": "monthly", "limit": "0.000001"}]})
    client = dialect(mixed_gateway.url, key)
    try:
        error = refused(client, lambda: client.plain(model_of("openai"), "Hello"), 402)
        assert "monthly budget of 0.000001 USD" in str(error)
        refused(client, lambda: client.stream(model_of("anthropic"), "Hello"), 402)
        # The embedded engine costs nothing.
        assert client.plain("smollm2", "Hello").output > 0
        # From the next request on.
        admin.ok("PATCH", f"/admin/v1/projects/{project}", json={"budgets": [{"period": "monthly", "limit": 10}]})
        assert client.plain(model_of("openai"), "Hello").output > 0
    finally:
        client.close()
    budget = admin.ok("GET", "/v1/budgets", params={"project": project})["data"][0]
    assert float(budget["spent"]) > 0
    assert float(budget["reserved"]) == 0


@pytest.mark.parametrize("dialect", dialects.ALL, ids=lambda dialect: dialect.name)
def test_a_key_that_may_use_one_model_only(mixed_gateway, admin, dialect):
    only = model_of("gemini")
    key = key_of(admin, f"narrow-{dialect.name}", {"models": [only]})
    client = dialect(mixed_gateway.url, key)
    try:
        assert client.plain(only, "Hello").output > 0
        for model in (model_of("openai"), "smollm2", "no-such-model"):
            with pytest.raises(dialects.error_of(client, 404)) as failed:
                client.plain(model, "Hello")
            assert dialects.status_of(failed.value) == 404
    finally:
        client.close()


def test_a_rotated_key_and_a_revoked_one(mixed_gateway, admin):
    import openai

    made = admin.ok("POST", "/admin/v1/keys", json={"project": "rotating"})
    rotated = admin.ok("POST", f"/admin/v1/keys/{made['id']}/rotate", json={"overlap_seconds": 600})
    for secret in (made["key"], rotated["key"]):
        with openai.OpenAI(base_url=mixed_gateway.v1, api_key=secret, max_retries=0) as client:
            assert client.models.list().data
    admin.ok("DELETE", f"/admin/v1/keys/{made['id']}")
    for secret in (made["key"], rotated["key"]):
        with openai.OpenAI(base_url=mixed_gateway.v1, api_key=secret, max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                client.models.list()
    acts = admin.ok("GET", "/admin/v1/audit", params={"limit": 100})["data"]
    of_key = {entry["act"] for entry in acts if entry["target"] == made["id"]}
    assert {"key.create", "key.rotate", "key.revoke"} <= of_key


def test_every_family_is_in_the_ledger_with_its_cost(mixed_gateway, admin):
    key = key_of(admin, "counted", {})
    with Wire(mixed_gateway.url, key) as wire:
        threads = [
            threading.Thread(
                target=wire.ok,
                args=("POST", CHAT),
                kwargs={"json": {"model": model_of(family), "messages": [user("Hello")], "max_tokens": 20}},
            )
            for family in FAMILIES
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        usage = wire.ok("GET", "/v1/usage", params={"group_by": "model"})
    priced = {group["model"] for group in usage["data"] if group["money"]}
    assert {group["model"] for group in usage["data"]} == {model_of(family) for family in FAMILIES}
    # Whoever runs a vLLM pays for its machine.
    assert priced == {model_of(family) for family in FAMILIES if family != "vllm"}


def error_headers(error: Exception) -> dict:
    response = getattr(error, "response", None)
    return {name.lower(): value for name, value in response.headers.items()}


@pytest.mark.parametrize("dialect", dialects.ALL, ids=lambda dialect: dialect.name)
def test_a_key_with_a_limit(mixed_gateway, admin, dialect):
    key = key_of(admin, f"slow-{dialect.name}", {}, limits={"requests_per_minute": 2})
    client = dialect(mixed_gateway.url, key)
    try:
        for _ in range(2):
            assert client.plain(model_of("openai"), "Hello").output > 0
        error = refused(client, lambda: client.plain(model_of("openai"), "Hello"), 429)
        headers = error_headers(error)
        # One of two in a minute is there again after half of it.
        assert 0 < int(headers["retry-after"]) <= 30
        ours = "anthropic-ratelimit-requests-remaining" if dialect is dialects.AnthropicMessages else "x-ratelimit-remaining-requests"
        assert headers[ours] == "0"
    finally:
        client.close()


def test_a_key_that_may_keep_two_contexts(mixed_gateway, admin):
    key = key_of(admin, "keeper", {}, limits={"contexts": 2})
    with Wire(mixed_gateway.url, key) as wire:
        held = [wire.create("smollm2", user(f"Text {number}"))["id"] for number in range(2)]
        body = {"model": "smollm2", "messages": [user("One more")]}
        answer = wire.post("/v1/context/create", json=body)
        assert answer.status_code == 429
        assert "This key has 2 living contexts" in answer.json()["error"]["message"]
        wire.ok("DELETE", f"/v1/context/{held[0]}")
        wire.create("smollm2", user("One more"))
