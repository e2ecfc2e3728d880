"""The programs that take part: started, configured, ended."""

import atexit
import os
import signal
import subprocess
import threading

CONFIG = """
[[upstreams]]
name = "steady"
provider = "openai"
base_url = "{steady}/v1"
api_key = "env:EMULATED_KEY"

[[upstreams]]
name = "shaky"
provider = "openai"
base_url = "{shaky}/v1"
api_key = "env:EMULATED_KEY"
breaker_failures = 1000

[[models]]
name = "steady"
route = [{{ upstream = "steady", model = "gpt-4.1" }}]

[[models]]
name = "shaky"
route = [{{ upstream = "shaky", model = "gpt-4.1" }}]
"""

ENGINE = """
[[engines]]
name = "default"
model = {model}

[[models]]
name = "embedded"
"""


def tail(log):
    """What the programs have said last."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
    return log.read()


class Server:
    """A program that prints where it listens. It ends with this one."""

    def __init__(self, command, marker, log, **environment):
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        atexit.register(self.process.kill)
        self.url = None
        for line in self.process.stdout:
            if marker in line:
                self.url = line.split(marker)[1].split()[0].rstrip(".")
                break
        if self.url is None:
            raise SystemExit(f"{command[0]} ended before it listened:\n{tail(log)}")
        # What it says later must not fill the pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None
