"""The command line, against a running server and without one."""

import json
import subprocess
from pathlib import Path

import pytest

from gateway import GEMINI, KEY, SEED_CONFIG, Gateway, binary, environment
from wire import Wire


def run(*arguments: str, code: int = 0, stdin: str = "", **variables: str) -> subprocess.CompletedProcess:
    ran = subprocess.run(
        [str(binary()), *arguments],
        cwd=Path(__file__).parent,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == code, f"{arguments}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran


@pytest.fixture
def holdfast(gateway):
    """The command line of somebody who has the server's address and a key."""

    def holdfast(*arguments: str, **more) -> subprocess.CompletedProcess:
        return run(*arguments, **{"HOLDFAST_URL": gateway.url, "HOLDFAST_API_KEY": KEY, **more})

    return holdfast


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "house-rules.txt"
    path.write_text("The house is quiet from ten at night. Bicycles stay in the yard.\n", encoding="utf-8")
    return path


def test_a_contexts_life(holdfast, text_file):
    labels = ("--name", "rules", "--ttl", "30m")
    created = holdfast("context", "create", "--file", str(text_file), "--model", GEMINI, *labels)
    context_id = created.stdout.strip()
    assert context_id.startswith("ctx-") and "\n" not in context_id

    listed = json.loads(holdfast("context", "list", "--json").stdout)
    (row,) = [context for context in listed if context["id"] == context_id]
    assert (row["display_name"], row["ttl"], row["mode"]) == ("rules", 1800, "common_prefix")
    assert context_id in holdfast("context", "list").stdout

    shown = json.loads(holdfast("context", "show", context_id, "--json").stdout)
    assert shown["prefix_tokens"] > 10
    assert context_id in holdfast("context", "show", context_id).stdout

    extended = json.loads(holdfast("context", "extend", context_id, "--ttl", "2h", "--json").stdout)
    assert extended["ttl"] == 7200

    asked = holdfast("chat", "--context", context_id, "--max-tokens", "8", "Where do bicycles stay?")
    assert asked.stdout.strip()
    assert "context hit" in asked.stderr
    assert f"{shown['prefix_tokens']} of" in asked.stderr

    forked = json.loads(holdfast("context", "fork", context_id, "--json").stdout)
    assert forked["forked_from"] == {"id": context_id, "at_turn": 0}

    assert context_id in holdfast("context", "delete", context_id, forked["id"]).stderr
    gone = holdfast("context", "show", context_id, code=1)
    assert gone.stdout == ""
    assert "not found" in gone.stderr
    assert "holdfast context list" in gone.stderr


def test_create_reads_standard_input_and_answers_json(holdfast):
    options = ("--model", GEMINI, "--mode", "session", "--json")
    made = holdfast("context", "create", "--file", "-", *options, stdin="Be brief.")
    created = json.loads(made.stdout)
    assert created["mode"] == "session"
    holdfast("chat", "--context", created["id"], "--max-tokens", "4", stdin="Hello\n")
    assert json.loads(holdfast("context", "show", created["id"], "--json").stdout)["turns"] == 1


def test_chat_without_context(holdfast):
    asked = holdfast("chat", "--model", GEMINI, "--temperature", "0", "--max-tokens", "6", "Say hello.")
    assert asked.stdout.strip()
    assert "answer tokens" in asked.stderr


def test_keys_are_made_listed_and_revoked(gateway, holdfast):
    made = json.loads(holdfast("key", "create", "--label", "by hand", "--json").stdout)
    listed = {key["id"]: key for key in json.loads(holdfast("key", "list", "--json").stdout)}
    assert listed[made["id"]]["label"] == "by hand"
    assert "key" not in listed[made["id"]]
    assert made["key"] not in holdfast("key", "list").stdout

    holdfast("context", "list", HOLDFAST_API_KEY=made["key"])
    refused = holdfast("key", "list", code=1, HOLDFAST_API_KEY=made["key"])
    assert "list the keys" in refused.stderr
    holdfast("key", "revoke", made["id"])
    with Wire(gateway.url, made["key"]) as holder:
        assert holder.get("/v1/models").status_code == 401
    assert "revoked" in holdfast("key", "list").stdout
    holdfast("key", "revoke", "key-none", code=1)


def test_the_data_directory_names_the_server(gateway):
    """As on the server's own machine, with nothing but the folder given."""
    here = ("--data-dir", str(gateway.data_dir), "--config", str(SEED_CONFIG))
    assert run(*here, "context", "list", "--json", HOLDFAST_API_KEY=KEY).stdout.startswith("[")
    checks = json.loads(run(*here, "doctor", "--json", HOLDFAST_API_KEY=KEY).stdout)
    verdicts = {check["check"]: check["verdict"] for check in checks}
    assert verdicts["server"] == verdicts["database"] == verdicts["model"] == verdicts["config"] == "ok"
    assert gateway.url in next(check["detail"] for check in checks if check["check"] == "server")


def test_doctor_works_where_nothing_has_run_yet(tmp_path):
    checks = json.loads(run("doctor", "--json", "--data-dir", str(tmp_path / "new")).stdout)
    assert {"cpu", "config", "data", "database", "model", "memory", "server"} <= {check["check"] for check in checks}
    assert "fail" not in {check["verdict"] for check in checks}


def test_models_are_listed(holdfast):
    models = json.loads(holdfast("models", "list", "--json").stdout)
    (default,) = [model for model in models if model["name"] == "smollm2-135m-instruct"]
    assert len(default["sha256"]) == 64
    assert "smollm2-135m-instruct (default)" in holdfast("models", "list").stdout
    holdfast("models", "remove", "no-such-model", code=1)


def test_config_check_and_schema(tmp_path):
    assert run("config", "check", str(SEED_CONFIG)).stdout.startswith("OK")
    assert run("config", "check", str(SEED_CONFIG.with_name("holdfast.toml"))).stdout.startswith("OK")
    schema = json.loads(run("config", "schema").stdout)
    assert {"server", "engines", "models"} <= set(schema["properties"])

    broken = tmp_path / "broken.toml"
    broken.write_text('[server]\nlisten = "127.0.0.1:0"\n\n[[models]]\nnam = "m"\n', encoding="utf-8")
    refused = run("config", "check", str(broken), code=1)
    assert "broken.toml:5:" in refused.stderr
    assert "nam" in refused.stderr
    assert run("serve", "--config", str(broken), "--data-dir", str(tmp_path / "data"), code=1).stderr == refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["context", "create"],
        ["context", "extend", "ctx-1", "--ttl", "soon"],
        ["key", "create", "--scope", "everything"],
        ["no-such-command"],
    ],
)
def test_a_command_line_that_can_not_be_meant_ends_with_2(arguments):
    assert "Usage:" in run(*arguments, code=2).stderr or "invalid value" in run(*arguments, code=2).stderr


def test_failures_end_with_1_and_say_what_to_try(holdfast, tmp_path):
    assert "HOLDFAST_API_KEY" in holdfast("context", "list", code=1, HOLDFAST_API_KEY="hf-wrong-key-000000000").stderr
    # Port 1 of this machine has no server.
    nobody = holdfast("context", "list", code=1, HOLDFAST_URL="http://127.0.0.1:1")
    assert "holdfast serve" in nobody.stderr
    missing = holdfast("context", "create", "--file", str(tmp_path / "none.txt"), code=1)
    assert "none.txt" in missing.stderr


def test_two_servers_can_not_share_a_data_directory(gateway):
    refused = run(
        "serve", "--listen", "127.0.0.1:0", "--data-dir", str(gateway.data_dir), "--config", str(SEED_CONFIG), code=1
    )
    assert f"process {gateway.process.pid}" in refused.stderr


def test_a_first_start_makes_a_key_that_the_command_line_finds(tmp_path):
    """No configuration, no key: what a newcomer does."""
    gateway = Gateway(tmp_path / "data", config=None, key=None)
    try:
        secret = next(line.strip() for line in gateway.lines if line.strip().startswith("hf-"))
        key_file = gateway.data_dir / "first-key"
        assert key_file.read_text().strip() == secret
        assert key_file.stat().st_mode & 0o777 == 0o600
        assert run("context", "list", "--json", "--data-dir", str(gateway.data_dir)).stdout.strip() == "[]"
        with Wire(gateway.url, secret) as wire:
            assert "smollm2-135m-instruct" in [model["id"] for model in wire.ok("GET", "/v1/models")["data"]]
    finally:
        gateway.stop()
    assert secret not in gateway.log.read_text()

    # Keys can be managed without a server, and a second start makes no second key.
    here = ("--data-dir", str(gateway.data_dir))
    made = json.loads(run(*here, "key", "create", "--json").stdout)
    again = Gateway(gateway.data_dir, config=None, key=None)
    try:
        assert not any(line.strip().startswith("hf-") for line in again.lines)
        with Wire(again.url, made["key"]) as wire:
            wire.ok("GET", "/v1/models")
    finally:
        again.stop()
