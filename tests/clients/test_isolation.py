"""What one project stores another one can't tell by timing: the audit of Gu et al. (ICML 2025), on the embedded engine.

A tenant that guesses what another one has stored asks for the same prefix, and compares how long its first token takes
with the same for texts that nobody has stored. Where prefixes are shared, the two differ; here they must not."""

import math
import random
import time

import pytest

from gateway import NATIVE, SMALL_CONFIG, Gateway
from wire import CHAT, Wire, system, user

# Each of the three samples has so many times. Two samples that do not overlap have a probability of 10^-9.
SAMPLES = 20
# One false alarm in so many runs of a gateway that keeps projects apart.
ALARM = 1e-4

WORDS = (
    "anchor beacon cable derrick engine flange gasket hatch impeller jib keel lantern mast nozzle oar pump quay rudder "
    "shackle tackle valve winch yard ballast capstan davit fender grommet halyard"
).split()


def prefix(seed: int) -> str:
    """A text that nobody else has, of the same words in another order, so that all of them take as long."""
    words = WORDS * 5
    random.Random(seed).shuffle(words)
    return " ".join(words)


def first_token_seconds(wire: Wire, text: str) -> float:
    """From nothing to the first token of a chat on a context with this text."""
    began = time.perf_counter()
    context_id = wire.create(NATIVE, system(text), ttl=60)["id"]
    body = {"context_id": context_id, "messages": [user("Go on.")], "max_tokens": 1, "stream": True}
    with wire.stream("POST", CHAT, json=body) as answer:
        assert answer.status_code == 200
        next(line for line in answer.iter_lines() if line.startswith("data: "))
        took = time.perf_counter() - began
    wire.ok("DELETE", f"/v1/context/{context_id}")
    return took


def kolmogorov_smirnov(one: list[float], other: list[float]) -> float:
    """The probability that two samples of the same distribution differ as much (two-sided, asymptotic)."""
    everything = sorted(one + other)
    share = lambda sample, at: sum(value <= at for value in sample) / len(sample)  # noqa: E731
    distance = max(abs(share(one, at) - share(other, at)) for at in everything)
    root = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))


def test_the_statistic_tells_samples_apart():
    same = [0.1 + 0.001 * step for step in range(SAMPLES)]
    shifted = [value + 0.5 for value in same]
    assert kolmogorov_smirnov(same, list(same)) == 1.0
    assert kolmogorov_smirnov(same, shifted) < 1e-7


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    gateway = Gateway(tmp_path_factory.mktemp("isolation") / "data", SMALL_CONFIG)
    yield gateway
    gateway.stop()


def test_first_token_times_do_not_tell_what_another_project_has_stored(apart):
    with Wire(apart.url) as admin:
        made = [
            admin.ok("POST", "/admin/v1/keys", json={"project": name, "scopes": ["inference"]})
            for name in ("victim", "curious")
        ]
    with Wire(apart.url, made[0]["key"]) as victim, Wire(apart.url, made[1]["key"]) as curious:
        for wire in (victim, curious):
            first_token_seconds(wire, prefix(-1))
        foreign, fresh, own = [], [], []
        for number in range(SAMPLES):
            stored = prefix(2 * number)
            held = victim.create(NATIVE, system(stored), ttl=3600)["id"]
            # In both orders alike, so that what changes with time changes both.
            guesses = [(foreign, stored), (fresh, prefix(2 * number + 1))]
            for sample, text in guesses if number % 2 else reversed(guesses):
                sample.append(first_token_seconds(curious, text))
            # The control: the project that has stored it is faster, so the audit would see it if others were.
            own.append(first_token_seconds(victim, stored))
            victim.ok("DELETE", f"/v1/context/{held}")
    told = kolmogorov_smirnov(foreign, fresh)
    control = kolmogorov_smirnov(own, fresh)
    print(f"another project's prefix against a random one: p = {told:.3g}; one's own against a random one: p = {control:.3g}")
    assert control < ALARM, "the audit can't tell anything on this machine"
    assert told > ALARM, (sorted(foreign), sorted(fresh))
