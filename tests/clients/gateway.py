"""Starts and ends the real binary. Waits for what it prints, never for a time to pass."""

import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SEED_CONFIG = REPOSITORY / "examples" / "seed.toml"
SMALL_CONFIG = Path(__file__).resolve().parent / "small.toml"

# The models of SEED_CONFIG: rules of Gemini and of Ark.
GEMINI = "gemini-2.0-flash"
DOUBAO = "Doubao-1.5-pro-32k"
# The model of SMALL_CONFIG: our own rules.
NATIVE = "smollm2"

KEY = "hf-client-tests-bootstrap-key-000000"

# A guard against hanging forever, not an expectation: reading the model file may wait for a slow disk.
PATIENCE_SECONDS = 180


def binary() -> Path:
    path = Path(os.environ.get("HOLDFAST_BIN", REPOSITORY / "target" / "release" / "holdfast"))
    return path if path.is_absolute() else REPOSITORY / path


def worker_binary() -> Path:
    """The program with the embedded engine, where HOLDFAST_BIN is one without."""
    path = os.environ.get("HOLDFAST_WORKER_BIN")
    return REPOSITORY / path if path else binary()


def environment(**more: str) -> dict[str, str]:
    """The environment for the binary, without settings of whoever runs the tests."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    models = Path(os.environ.get("HOLDFAST_MODELS_DIR", REPOSITORY / "target" / "models"))
    clean["HOLDFAST_MODELS_DIR"] = str(models if models.is_absolute() else REPOSITORY / models)
    return {**clean, **more}


class Gateway:
    """One run of `holdfast serve` on a data directory, which outlives it."""

    def __init__(
        self,
        data_dir: Path,
        config: Path | None = SEED_CONFIG,
        key: str | None = KEY,
        program: Path | None = None,
        **variables: str,
    ):
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self.lines: list[str] = []
        self._printed: queue.Queue[str | None] = queue.Queue()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(program or binary()),
                    "serve",
                    "--listen",
                    "127.0.0.1:0",
                    "--data-dir",
                    str(data_dir),
                    *(["--config", str(config)] if config else []),
                ],
                # Not the repository, where whoever runs the tests may have a holdfast.toml.
                cwd=data_dir.parent,
                env=environment(**({"HOLDFAST_BOOTSTRAP_KEY": key} if key else {}), **variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.url = self._wait_for("listening on ")
        except BaseException:
            self.kill()
            raise

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"

    def stop(self) -> None:
        """Asks it to end, and insists that it ends well."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server does not stop:\n{self._tail()}") from None
        assert code == 0, f"the server ended with {code}:\n{self._tail()}"

    def kill(self) -> None:
        """Ends it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._printed.put(line.rstrip("\n"))
        self._printed.put(None)

    def _wait_for(self, beginning: str) -> str:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                line = self._printed.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"the server did not print `{beginning}`:\n{self._tail()}") from None
            if line is None:
                raise AssertionError(f"the server ended before it listened:\n{self._tail()}")
            self.lines.append(line)
            if line.startswith(beginning):
                return line.removeprefix(beginning)

    def _tail(self) -> str:
        return "\n".join([*self.lines, *self.log.read_text(errors="replace").splitlines()[-30:]])
