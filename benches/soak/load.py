"""The clients: what they ask, how often, and what they were told."""

import http.client
import json
import random
import threading
import time
from collections import Counter, deque

WORKERS = 8
CONTEXTS_MAX = 40
TURNS_MAX = 20
TEXT = "The harbour master counted three copper kettles before the snow melted. " * 90
SHORT = "Be brief. The harbour master counted three copper kettles."


class Client:
    """One connection that is kept, and a key."""

    def __init__(self, url, key):
        self.key = key
        self.connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)

    def send(self, method, path, body=None):
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        self.connection.request(method, path, text, headers)
        return self.connection.getresponse()

    def call(self, method, path, body=None):
        response = self.send(method, path, body)
        return response.status, response.read()

    def json(self, method, path, body=None):
        status, text = self.call(method, path, body)
        if status != 200:
            raise SystemExit(f"{method} {path}: {status} {text.decode(errors='replace')}")
        return json.loads(text)

    def leave(self, path, body):
        """Reads the beginning of a stream and hangs up."""
        response = self.send("POST", path, body)
        status = response.status
        if status == 200:
            response.read1(64)
        response.close()
        self.connection.close()
        return status


class Load:
    """What all clients share. Everything in it is bounded by the rate and the time between two measurements."""

    def __init__(self, url, rate, has_engine):
        self.url = url
        self.pause = 1 / rate
        self.has_engine = has_engine
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.next_at = time.monotonic()
        self.latencies = {}
        self.rows = Counter()
        self.requests = 0
        self.wrong = Counter()

    def wait(self):
        """Until this client's turn. Time that was lost is not made up for."""
        with self.lock:
            self.next_at = max(self.next_at + self.pause, time.monotonic())
            until = self.next_at
        self.stopping.wait(max(0, until - time.monotonic()))

    def note(self, kind, project, began, status, expected, has_row=True):
        with self.lock:
            self.requests += 1
            self.rows[project] += has_row
            if status == expected[0]:
                self.latencies.setdefault(kind, []).append((time.monotonic() - began) * 1000)
            if status not in expected:
                self.wrong[f"{kind} of {project}: {status}"] += 1

    def take_latencies(self):
        with self.lock:
            taken, self.latencies = self.latencies, {}
            return taken, self.requests


class Worker(threading.Thread):
    """A client of one project, with contexts and a session of its own."""

    def __init__(self, load, project, key, seed):
        super().__init__(daemon=True)
        self.load, self.project, self.client = load, project, Client(load.url, key)
        self.random = random.Random(seed)
        self.contexts = deque()
        self.session, self.turns = None, 0
        # A budget that is used up refuses what would cost something.
        self.paid = (200,) if project == "rich" else (200, 402)
        self.kinds = [
            (self.chat, 30), (self.stream, 20), (self.cancel, 8), (self.turn, 15),
            (self.create, 6), (self.mistake, 6), (self.shaky, 10), (self.look, 5),
        ]
        if load.has_engine:
            self.kinds.append((self.embedded, 4))
        self.engine_context = None

    def run(self):
        functions, weights = zip(*self.kinds)
        while True:
            self.load.wait()
            if self.load.stopping.is_set():
                return
            try:
                self.random.choices(functions, weights)[0]()
            except (OSError, http.client.HTTPException, ValueError) as error:
                with self.load.lock:
                    self.load.wrong[f"{type(error).__name__}: {error}"] += 1
                self.client.connection.close()

    def post(self, kind, path, body, expected, has_row=True):
        began = time.monotonic()
        status, text = self.client.call("POST", path, body)
        self.load.note(kind, self.project, began, status, expected, has_row)
        return status, text

    def made(self, kind, fields):
        status, text = self.post(kind, "/v1/context/create", fields, self.paid)
        return json.loads(text)["id"] if status == 200 else None

    def delete(self, context):
        began = time.monotonic()
        status, _ = self.client.call("DELETE", f"/v1/context/{context}")
        self.load.note("delete", self.project, began, status, (200,), has_row=False)

    def create(self):
        text = f"{self.random.random()} {TEXT}"
        body = {"model": "steady", "messages": [{"role": "system", "content": text}], "ttl": 3600}
        made = self.made("create", body)
        if made:
            self.contexts.append(made)
        if len(self.contexts) > CONTEXTS_MAX // WORKERS:
            self.delete(self.contexts.popleft())

    def question(self, context=None, **fields):
        words = f"Question {self.random.randrange(100)}: how many kettles?"
        body = {"messages": [{"role": "user", "content": words}], "max_tokens": 50, **fields}
        return {**body, "context_id": context} if context else body

    def about_a_context(self, **fields):
        if not self.contexts:
            return self.question(model="steady", **fields)
        return self.question(self.random.choice(self.contexts), **fields)

    def chat(self):
        self.post("chat", "/v1/chat/completions", self.about_a_context(), self.paid)

    def stream(self):
        self.post("stream", "/v1/chat/completions", self.about_a_context(stream=True), self.paid)

    def cancel(self):
        began = time.monotonic()
        status = self.client.leave("/v1/chat/completions", self.about_a_context(stream=True))
        self.load.note("cancel", self.project, began, status, self.paid)

    def turn(self):
        if self.session and self.turns >= TURNS_MAX:
            self.delete(self.session)
            self.session = None
        if not self.session:
            body = {"model": "steady", "mode": "session", "ttl": 3600,
                    "messages": [{"role": "system", "content": TEXT}]}
            self.session, self.turns = self.made("create", body), 0
            return
        self.turns += 1
        self.post("turn", "/v1/chat/completions", self.question(self.session), self.paid)

    def mistake(self):
        body = self.random.choice(["{", {"model": "steady"}, self.question(model="nobody")])
        self.post("mistake", "/v1/chat/completions", body, (400, 404))

    def shaky(self):
        body = self.question(model="shaky", stream=self.random.random() < 0.5)
        self.post("shaky", "/v1/messages", body, (*self.paid, 502, 504))

    def look(self):
        for path in ("/v1/context", "/v1/budgets", "/v1/models"):
            began = time.monotonic()
            status, _ = self.client.call("GET", path)
            self.load.note("look", self.project, began, status, (200,), has_row=False)

    def embedded(self):
        if not self.engine_context:
            body = {"model": "embedded", "messages": [{"role": "system", "content": SHORT}]}
            self.engine_context = self.made("create", body)
            return
        body = self.question(self.engine_context) | {"max_tokens": 8}
        self.post("embedded", "/v1/chat/completions", body, (200,))
