"""A fleet of real engines: three processes with the embedded model as workers behind a gateway of its own."""

import time
from collections.abc import Iterator

import pytest

from gateway import KEY, PATIENCE_SECONDS, REPOSITORY, Gateway, worker_binary
from wire import CHAT, Wire, cached, system, user

MODEL = "fleet"
ENGINES_MODEL = "smollm2"
WORKERS = 3

# A worker notices by itself what requests begin with, as vLLM does: at the second one with the same beginning.
WORKER = f"""
[[engines]]
name = "default"

[[models]]
name = "{ENGINES_MODEL}"
engine = "default"
auto_context = true
"""


class Fleet:
    def __init__(self, folder):
        self.folder = folder
        self.workers: list[Gateway] = []
        try:
            for number in range(WORKERS):
                config = folder / f"w{number}.toml"
                config.write_text(WORKER, encoding="utf-8")
                self.workers.append(Gateway(folder / f"w{number}", config, program=worker_binary()))
            config = folder / "fleet.toml"
            config.write_text(self._config(), encoding="utf-8")
            self.gateway = Gateway(folder / "front", config, FLEET_KEY=KEY)
        except BaseException:
            self._kill_workers()
            raise
        self.wire = Wire(self.gateway.url)

    def _config(self) -> str:
        text = """
[[upstreams]]
name = "fleet"
provider = "openai-compatible"
api_key = "env:FLEET_KEY"
cache = { caching = "automatic" }
pool = { health_path = "/healthz", health_interval_ms = 200 }
"""
        for number, worker in enumerate(self.workers):
            text += f'[[upstreams.workers]]\nname = "w{number}"\nurl = "{worker.v1}"\n'
        return text + f"""
[[models]]
name = "{MODEL}"
route = [{{ upstream = "fleet", model = "{ENGINES_MODEL}" }}]
window_tokens = 8192
"""

    def requests(self) -> list[int]:
        """Chats that each worker has answered, by the gateway's count."""
        counts = [0] * WORKERS
        for line in self.wire.get("/metrics").text.splitlines():
            if line.startswith("holdfast_upstream_worker_requests_total") and 'result="ok"' in line:
                number = int(line.split('worker="w')[1].split('"')[0])
                counts[number] = int(float(line.rsplit(" ", 1)[1]))
        return counts

    def ask(self, context_id: str, question: str) -> tuple[int, dict]:
        """Asks with a context; says which worker has answered, and what."""
        before = self.requests()
        body = {"context_id": context_id, "messages": [user(question)], "max_tokens": 4, "temperature": 0}
        answer = self.wire.ok("POST", CHAT, json=body)
        after = self.requests()
        moved = [number for number in range(WORKERS) if after[number] > before[number]]
        assert len(moved) == 1, (before, after)
        return moved[0], answer

    def warm(self, context_id: str) -> int:
        """Asks until a worker knows the context; says which one does."""
        (first, _), (second, _) = (self.ask(context_id, question) for question in ("What is this?", "And what else?"))
        assert first == second
        return first

    def hits(self, context_id: str, worker: int) -> None:
        """Asks once more, of this worker, whose cache has it."""
        where, answer = self.ask(context_id, "Are you sure?")
        assert where == worker
        assert answer["context_cache"]["status"] == "hit", answer["context_cache"]
        assert cached(answer) > answer["usage"]["prompt_tokens"] / 2, answer["usage"]

    def state(self, number: int) -> str:
        upstreams = self.wire.ok("GET", "/admin/v1/upstreams")["data"]
        return upstreams[0]["workers"][number]["state"]

    def until(self, number: int, state: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.state(number) != state:
            assert time.monotonic() < deadline, f"worker {number} is never {state}"
            time.sleep(0.05)

    def stop(self) -> None:
        self.wire.close()
        self.gateway.stop()
        self._kill_workers()

    def _kill_workers(self) -> None:
        for worker in self.workers:
            worker.kill()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> Iterator[Fleet]:
    """Starting real engines takes its time, so that the tests share them; the one that kills comes last."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    yield fleet
    fleet.stop()


@pytest.fixture
def text() -> str:
    """Enough for a worker to keep it."""
    return (REPOSITORY / "docs" / "handbook.md").read_text(encoding="utf-8")[:5500]


def test_a_drained_engine_gets_nothing_new_and_keeps_what_it_knows(fleet, text):
    context = fleet.wire.create(MODEL, system(text))["id"]
    own = fleet.warm(context)
    worker = f"/admin/v1/upstreams/fleet/workers/w{own}"
    assert fleet.wire.ok("POST", f"{worker}/drain", json={})["state"] == "draining"
    where, _ = fleet.ask(context, "Hello again?")
    assert where != own
    assert fleet.wire.ok("POST", f"{worker}/undrain", json={})["state"] == "healthy"
    fleet.hits(context, own)


def test_contexts_stay_with_real_engines_and_outlive_one_of_them(fleet, text):
    homes = {}
    for number in range(3):
        context = fleet.wire.create(MODEL, system(f"Document {number}.\n{text}"))["id"]
        homes[context] = fleet.warm(context)
        fleet.hits(context, homes[context])

    context, own = next(iter(homes.items()))
    fleet.workers[own].kill()
    where, answer = fleet.ask(context, "Still there?")
    assert where != own
    receipt = answer["context_cache"]
    assert (receipt["status"], receipt["reason"]) == ("rebuilt", "failover"), receipt
    assert fleet.warm(context) == where
    fleet.hits(context, where)
    fleet.until(own, "unhealthy")
    for other, home in homes.items():
        if home != own:
            fleet.hits(other, home)
