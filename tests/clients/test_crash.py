"""Kills the server with -9 while it works, again and again, and looks for anything lost, halved or invented.

What a client was told before the kill is the least that must be there after it; what a client was waiting for may be
there or not, but only wholly. The moment of the kill comes after a drawn number of acknowledged operations.
CRASH_ROUNDS sets the number of kills, CRASH_SEED draws them.
"""

import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import pytest

from gateway import GEMINI, Gateway
from wire import CHAT, CREATE, Wire, cached, events, system, text_of, user

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "10"))
SEED = int(os.environ.get("CRASH_SEED", "1"))
THREADS = 4

# A thread stops making more when it has so many, so that each gets its turns.
CONTEXTS_PER_THREAD = 6


@dataclass
class Known:
    """What clients have been told of a context."""

    id: str
    mode: str
    tokens: int
    turns: int = 0
    turn_in_flight: bool = False
    delete_in_flight: bool = False


@dataclass
class Ledger:
    """What clients have been told, and what they were waiting for when the server died."""

    known: dict[str, Known] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    creates_in_flight: set[str] = field(default_factory=set)
    forks_in_flight: list[tuple[str, int]] = field(default_factory=list)
    names: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def new_name(self) -> str:
        with self.lock:
            self.names += 1
            return f"crash-{self.names}"


class Worker:
    """One client that works on contexts of its own, so that it knows what each should be like."""

    def __init__(self, url: str, ledger: Ledger, mine: list[Known], seed: str, acknowledged: Callable[[], None]):
        self.wire = Wire(url)
        self.ledger = ledger
        self.mine = mine
        self.random = random.Random(seed)
        self.acknowledged = acknowledged
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            with self.wire:
                while True:
                    self._draw()()
                    self.acknowledged()
        except httpx.TransportError:
            pass  # The server is dead, as it should be.
        except BaseException as error:
            self.failure = error
            # Whoever counts acknowledgements would wait for this thread's.
            self.acknowledged()

    def _draw(self) -> Callable[[], None]:
        sessions = [known for known in self.mine if known.mode == "session"]
        if not sessions:
            return lambda: self.create("session")
        known = self.random.choice(self.mine)
        session = self.random.choice(sessions)
        if len(self.mine) >= CONTEXTS_PER_THREAD:
            return self.random.choice([lambda: self.delete(known), lambda: self.turn(session)])
        return self.random.choice(
            [
                lambda: self.create("session"),
                lambda: self.create("common_prefix"),
                lambda: self.turn(session),
                lambda: self.turn(session),
                lambda: self.streamed_turn(session),
                lambda: self.streamed_turn(session),
                lambda: self.fork(known),
                lambda: self.delete(known),
            ]
        )

    def create(self, mode: str) -> None:
        name = self.ledger.new_name()
        body = {
            "model": GEMINI,
            "mode": mode,
            "messages": [system(f"You are assistant {name}. You answer in a few words.")],
            "display_name": name,
            "ttl": 86400,
        }
        with self.ledger.lock:
            self.ledger.creates_in_flight.add(name)
        created = self._send("POST", CREATE, body, undo=lambda: self.ledger.creates_in_flight.discard(name))
        with self.ledger.lock:
            self.ledger.creates_in_flight.discard(name)
            known = Known(created["id"], created["mode"], created["usage"]["prompt_tokens"])
            self.ledger.known[known.id] = known
        self.mine.append(known)

    def turn(self, known: Known) -> None:
        known.turn_in_flight = True
        answer = self._send("POST", CHAT, self._question(known), undo=lambda: self._not_sent(known))
        self._turn_done(known, answer["context_cache"])

    def streamed_turn(self, known: Known) -> None:
        known.turn_in_flight = True
        body = self._question(known) | {"stream": True}
        try:
            with self.wire.stream("POST", CHAT, json=body) as answer:
                assert answer.status_code == 200, answer.read()
                # Whoever sees the end of an answer may rely on it, whether or not anything follows.
                for chunk in events(answer):
                    if chunk["choices"][0]["finish_reason"]:
                        self._turn_done(known, chunk["context_cache"])
        except httpx.ConnectError:
            self._not_sent(known)
            raise

    def fork(self, known: Known) -> None:
        at_turn = self.random.randint(0, known.turns)
        case = (known.id, at_turn)
        with self.ledger.lock:
            self.ledger.forks_in_flight.append(case)
        path = f"/v1/context/{known.id}/fork"
        forked = self._send("POST", path, {"at_turn": at_turn}, undo=lambda: self.ledger.forks_in_flight.remove(case))
        with self.ledger.lock:
            self.ledger.forks_in_flight.remove(case)
            child = Known(forked["id"], forked["mode"], forked["usage"]["prompt_tokens"], at_turn)
            self.ledger.known[child.id] = child
        self.mine.append(child)

    def delete(self, known: Known) -> None:
        known.delete_in_flight = True
        self._send("DELETE", f"/v1/context/{known.id}", None, undo=lambda: setattr(known, "delete_in_flight", False))
        with self.ledger.lock:
            del self.ledger.known[known.id]
            self.ledger.deleted.add(known.id)
        self.mine.remove(known)

    def _question(self, known: Known) -> dict:
        return {
            "context_id": known.id,
            "messages": [user(f"Question {known.turns + 1}?")],
            "max_tokens": 4,
            "temperature": 0,
        }

    def _turn_done(self, known: Known, receipt: dict) -> None:
        assert receipt["prefix_tokens"] == known.tokens
        known.turns += 1
        known.tokens += receipt["written_tokens"]
        known.turn_in_flight = False

    @staticmethod
    def _not_sent(known: Known) -> None:
        known.turn_in_flight = False

    def _send(self, method: str, path: str, body: dict | None, undo: Callable[[], object]) -> dict:
        try:
            return self.wire.ok(method, path, json=body)
        except httpx.ConnectError:
            # Nobody was there to receive it, so it can't have happened.
            undo()
            raise


def work_until_killed(gateway: Gateway, ledger: Ledger, round_number: int) -> None:
    """Lets four clients work, and kills the server in the middle of it."""
    draw = random.Random(f"{SEED}-{round_number}")
    kill_after = draw.randint(6, 24)
    counted, lock = 0, threading.Lock()

    def acknowledged() -> None:
        nonlocal counted
        with lock:
            counted += 1
            if counted == kill_after:
                gateway.kill()

    known = list(ledger.known.values())
    draw.shuffle(known)
    workers = [
        Worker(gateway.url, ledger, known[number::THREADS], f"{SEED}-{round_number}-{number}", acknowledged)
        for number in range(THREADS)
    ]
    for worker in workers:
        worker.thread.start()
    for worker in workers:
        worker.thread.join()
    gateway.kill()
    for worker in workers:
        if worker.failure:
            raise worker.failure


def check(wire: Wire, ledger: Ledger) -> list[Known]:
    """Compares what is stored with what clients know, and brings the ledger up to date.

    Returns the contexts that something was happening to.
    """
    stored = {context["id"]: context for context in wire.contexts()}
    touched = []

    for deleted in ledger.deleted:
        assert deleted not in stored, f"{deleted} was deleted and is back"
        assert wire.get(f"/v1/context/{deleted}").status_code == 404
    ledger.deleted.clear()

    for known in list(ledger.known.values()):
        context = stored.pop(known.id, None)
        if known.delete_in_flight and context is None:
            del ledger.known[known.id]
            continue
        assert context is not None, f"{known} is lost"
        assert wire.context(known.id) == context
        assert context["mode"] == known.mode
        if known.turn_in_flight and context["turns"] == known.turns + 1:
            assert context["prefix_tokens"] > known.tokens, f"a turn of {known} has nothing in it"
        else:
            assert context["turns"] == known.turns, f"{known} has {context['turns']} turns"
            assert context["prefix_tokens"] == known.tokens, f"{known} has {context['prefix_tokens']} tokens"
        if known.turn_in_flight or known.delete_in_flight:
            touched.append(known)
        known.turns, known.tokens = context["turns"], context["prefix_tokens"]
        known.turn_in_flight = known.delete_in_flight = False

    # What is left was not acknowledged, so somebody must have been waiting for it.
    for context in stored.values():
        origin = context.get("forked_from")
        if origin:
            case = (origin["id"], origin["at_turn"])
            assert case in ledger.forks_in_flight, f"nobody forked {context}"
            ledger.forks_in_flight.remove(case)
            assert context["turns"] == origin["at_turn"]
        else:
            assert context["display_name"] in ledger.creates_in_flight, f"nobody created {context}"
            ledger.creates_in_flight.remove(context["display_name"])
            assert context["turns"] == 0
            assert context["prefix_tokens"] == context["initial_tokens"]
        known = Known(context["id"], context["mode"], context["prefix_tokens"], context["turns"])
        ledger.known[known.id] = known
        touched.append(known)
    ledger.creates_in_flight.clear()
    ledger.forks_in_flight.clear()
    return touched


def goes_on(wire: Wire, known: Known) -> None:
    """A chat works, on all that is stored, and says what became of the state."""
    answer = wire.ask(known.id, "Are you still there?", max_tokens=2)
    receipt = answer["context_cache"]
    # The state of a turn is computed in the background, so that a kill may leave some of it to its first use.
    is_partly_new = known.turns > 0 and 0 < receipt["cached_tokens"] < known.tokens
    assert receipt["status"] in ("hit", "rebuilt") or (receipt["status"] == "miss" and is_partly_new), receipt
    assert receipt["prefix_tokens"] == known.tokens
    assert cached(answer) == receipt["cached_tokens"] <= known.tokens
    assert answer["usage"]["prompt_tokens"] > known.tokens
    if known.mode == "session":
        known.turns += 1
        known.tokens += receipt["written_tokens"]
    assert wire.context(known.id)["turns"] == known.turns


@pytest.mark.crash
def test_nothing_acknowledged_is_lost_and_nothing_is_invented(tmp_path):
    ledger = Ledger()
    gateway = Gateway(tmp_path / "data")
    try:
        for round_number in range(ROUNDS):
            work_until_killed(gateway, ledger, round_number)
            gateway = Gateway(tmp_path / "data")
            with Wire(gateway.url) as wire:
                touched = check(wire, ledger)
                others = [known for known in ledger.known.values() if known not in touched]
                for known in touched + others[-2:]:
                    goes_on(wire, known)
        with Wire(gateway.url) as wire:
            check(wire, ledger)
        gateway.stop()

        # An orderly end and start changes nothing either.
        gateway = Gateway(tmp_path / "data")
        with Wire(gateway.url) as wire:
            check(wire, ledger)
            for known in list(ledger.known.values())[:3]:
                goes_on(wire, known)
        gateway.stop()
    finally:
        gateway.kill()
    assert len(ledger.known) > THREADS, "too little was going on to prove anything"


@pytest.mark.crash
@pytest.mark.parametrize("end", ["kill", "stop"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_state_is_rebuilt_and_never_trusted(tmp_path, end, damage):
    question = "When does the library close on Fridays?"
    gateway = Gateway(tmp_path / "data")
    try:
        with Wire(gateway.url) as wire:
            rules = system("The library of Amberg is open from nine to six, on Fridays to eight. Silence is golden.")
            prefix = wire.create(GEMINI, rules)["id"]
            session = wire.session(GEMINI, "You are a librarian.")
            wire.ask(session, "Good morning.")
            before = wire.ask(prefix, question, max_tokens=12)
            twin = wire.ok("POST", f"/v1/context/{session}/fork")["id"]
            expected = wire.ask(twin, question, max_tokens=12)
        getattr(gateway, end)()
        damage_state(tmp_path / "data" / "state", damage, is_expected=end == "stop")

        gateway = Gateway(tmp_path / "data")
        with Wire(gateway.url) as wire:
            first = wire.ask(prefix, question, max_tokens=12)
            second = wire.ask(prefix, question, max_tokens=12)
            turn = wire.ask(session, question, max_tokens=12)
        assert first["context_cache"]["status"] == turn["context_cache"]["status"] == "rebuilt"
        assert second["context_cache"]["status"] == "hit"
        assert text_of(first) == text_of(second) == text_of(before)
        assert text_of(turn) == text_of(expected)
        gateway.stop()
    finally:
        gateway.kill()


def damage_state(folder, damage: str, is_expected: bool) -> None:
    """Damages every file of saved state. After an orderly end there must be some."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files or not is_expected, "no state was saved"
    for path in files:
        content = bytearray(path.read_bytes())
        if damage == "remove":
            path.unlink()
        elif damage == "cut":
            path.write_bytes(content[: len(content) // 2])
        elif content:
            content[len(content) // 2] ^= 0x10
            path.write_bytes(content)
