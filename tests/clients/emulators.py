"""Emulated providers, each a process of its own, and a gateway with a model routed to each of them."""

import os
import subprocess
from pathlib import Path

from gateway import REPOSITORY
from obedient import Obedient

# Upstream families by the name of the emulator, each with a model that caches. Provider and base path are what the
# emulator itself prints.
FAMILIES = {
    "openai": "gpt-5.6",
    "anthropic": "claude-opus-5-5",
    # Signs its calls of tools, and refuses a signature that was changed on its way through a client.
    "gemini": "gemini-3.8-flash",
    "ark": "doubao-seed-2-1-pro-260915",
    "bedrock": "us.anthropic.claude-opus-5-5",
    "vllm": "Qwen/Qwen3-8B",
}

# What goes wrong, as the emulator's `--fault` spells it. The emulator is called `FAULT-FAMILY`.
FAULTS = {"limited": "status:429", "overloaded": "status:503", "breaking": "error:5"}

# Who is refused with 429. An upstream that says when to come again is left alone until then, so each has its own.
REFUSED = [
    "openai-chat",
    "openai-responses",
    "anthropic",
    "gemini",
    "langchain",
    "node-openai-chat",
    "node-openai-responses",
    "node-anthropic",
    "node-gemini",
    "node-ai-openai",
    "node-ai-openai-chat",
    "node-ai-anthropic",
    "node-ai-google",
]

# An upstream of our own beside them.
OBEDIENT = "obedient"

# The embedded engine.
EMBEDDED = "smollm2"


def emulators_binary() -> Path:
    path = Path(os.environ.get("HOLDFAST_EMULATORS", REPOSITORY / "target" / "release" / "holdfast-emulators"))
    return path if path.is_absolute() else REPOSITORY / path


class Emulator:
    """One provider on a port of its own."""

    def __init__(self, family: str, *arguments: str):
        self.family = family
        self.process = subprocess.Popen(
            [str(emulators_binary()), family, "--port", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        # It prints how to configure it, an `export` last.
        settings = {}
        for line in self.process.stdout:
            key, equals, value = line.strip().partition(" = ")
            if equals:
                settings[key] = value.strip('"')
            if line.startswith("export "):
                break
        assert "base_url" in settings, f"the emulator of {family} did not start"
        self.provider, self.base_url = settings["provider"], settings["base_url"]
        self.url = "/".join(self.base_url.split("/")[:3])

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def config(emulators: dict[str, Emulator | Obedient]) -> str:
    """A model for each emulator and the embedded one beside them."""
    blocks = [
        # What a test finds below a provider's minimum is sent whole.
        '[contexts]\nsmall_contexts = "replay"\n',
        f'[[models]]\nname = "{EMBEDDED}"\nengine = "default"\naliases = ["default"]\n',
        '[[engines]]\nname = "default"\n',
    ]
    for name, emulator in emulators.items():
        names = [f"{name}-{client}" for client in REFUSED] if name.startswith("limited-") else [name]
        blocks += [routed(name, emulator) for name in names]
    return "\n".join(blocks)


def routed(name: str, emulator: Emulator | Obedient) -> str:
    return (
        f'[[upstreams]]\nname = "{name}"\nprovider = "{emulator.provider}"\nbase_url = "{emulator.base_url}"\n'
        # Attempts are the clients' own, and no failure keeps the next request from the upstream.
        'api_key = "env:EMULATED_KEY"\nretries_max = 0\nbreaker_failures = 1000\n\n'
        f'[[models]]\nname = "{model_of(name)}"\n'
        f'route = [{{ upstream = "{name}", model = "{FAMILIES.get(emulator.family, name)}" }}]\n'
    )


def model_of(name: str) -> str:
    """What clients call the model of an emulator. The name says nothing that a client could draw conclusions from."""
    return f"via-{name}"


def start_all() -> dict[str, Emulator | Obedient]:
    started: dict[str, Emulator | Obedient] = {}
    try:
        started[OBEDIENT] = Obedient()
        for family in FAMILIES:
            started[family] = Emulator(family)
            for name, fault in FAULTS.items():
                started[f"{name}-{family}"] = Emulator(family, "--fault", fault)
    except BaseException:
        stop_all(started)
        raise
    return started


def stop_all(emulators: dict[str, Emulator | Obedient]) -> None:
    for emulator in emulators.values():
        emulator.stop()
