#!/usr/bin/env python3
"""Runs the gateway for hours under a mixed load and says whether anything grows that must not.

Starts the real program on SQLite, with emulated and priced upstreams and, where there is a model file, with the
embedded engine. Clients of several projects with budgets create contexts, ask with them, talk on sessions, stream,
leave in the middle of streams, delete and make mistakes, at a bounded rate. Every ten seconds the process is measured;
every measurement is a line of the CSV file. In the end the last third of the time is compared with the second; the
first is there to get warm. Exit code 1, with the reasons, if

- memory has grown by more than 10 % and 8 MiB,
- descriptors or threads have grown by more than 8,
- the median latency of some kind of request has grown by more than half and a millisecond,
- the ledger does not have exactly one row for each request,
- a request was answered as it must not be, or the program did not end as it should.

Needs nothing but Python 3.11. What it keeps itself is bounded, too: latencies since the last measurement.
"""

import argparse
import csv
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from load import WORKERS, Client, Load, Worker
from programs import CONFIG, ENGINE, Server, tail
from verdict import grown, measure, missing_rows, percentile

ADMIN_KEY = "key-of-a-soak-server"
SAMPLE_SECONDS = 10
PROJECTS = {"rich": "1000000", "poor": "0.5"}


def keys_of(admin):
    """Two keys of each project."""
    for project, limit in PROJECTS.items():
        budgets = [{"period": "total", "limit": limit}]
        admin.json("POST", "/admin/v1/projects", {"name": project, "budgets": budgets})
        for _ in range(2):
            made = admin.json("POST", "/admin/v1/keys", {"project": project})
            yield project, made["key"]


def run(arguments, folder, log):
    emulated = [str(arguments.emulators), "openai"]
    steady = Server([*emulated, "--fault", "slow-drip:5"], "emulated on ", log)
    faults = ["status:500", "close", "cut:2", "error:2", "usage:missing"]
    faults = [word for fault in faults for word in ("--fault", fault)]
    shaky = Server([*emulated, *faults, "--probability", "0.2"], "emulated on ", log)
    text = CONFIG.format(steady=steady.url, shaky=shaky.url)
    if arguments.model:
        text += ENGINE.format(model=json.dumps(os.path.abspath(arguments.model)))
    config = folder / "holdfast.toml"
    config.write_text(text)
    command = [str(arguments.binary), "serve", "--listen", "127.0.0.1:0",
               "--config", str(config), "--data-dir", str(folder / "data")]
    gateway = Server(command, "listening on ", log, HOLDFAST_BOOTSTRAP_KEY=ADMIN_KEY,
                     HOLDFAST_LOG="warn", EMULATED_KEY="key-1", NO_PROXY="127.0.0.1")
    process = gateway.process.pid
    load = Load(gateway.url, arguments.rate, bool(arguments.model))
    admin = Client(gateway.url, ADMIN_KEY)
    keys = list(keys_of(admin))
    workers = [Worker(load, *keys[number % len(keys)], number) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    samples, began = [], time.monotonic()
    kinds = [function.__name__ for function, _ in workers[0].kinds] + ["delete"]
    fields = ["seconds", "requests", "rows", "rss_mib", "descriptors", "threads", "data_mib", "rows_waiting"]
    fields += [f"{kind}_{name}_ms" for kind in kinds for name in ("p50", "p99")]
    with open(arguments.csv, "w", newline="") as file:
        table = csv.DictWriter(file, fields)
        table.writeheader()
        for number in range(1, int(arguments.hours * 3600 / SAMPLE_SECONDS) + 1):
            time.sleep(max(0, began + number * SAMPLE_SECONDS - time.monotonic()))
            if gateway.process.poll() is not None:
                return [f"the gateway ended with {gateway.process.returncode}"]
            latencies, requests = load.take_latencies()
            sample = {"seconds": number * SAMPLE_SECONDS, "requests": requests, "rows": load.rows.total()}
            sample |= measure(process, folder / "data", admin)
            for kind, values in latencies.items():
                for percent in (50, 99):
                    sample[f"{kind}_p{percent}_ms"] = round(percentile(values, percent), 2)
            table.writerow(sample)
            file.flush()
            samples.append(sample)
    load.stopping.set()
    for worker in workers:
        worker.join(90)
    problems = [*grown(samples), *missing_rows(load, admin)]
    problems += [f"{count} times {what}" for what, count in load.wrong.most_common(10)]
    admin.connection.close()
    code = gateway.stop()
    if code != 0:
        problems.append(f"the gateway did not end as it should: {code}")
    for emulator in (steady, shaky):
        emulator.stop(signal.SIGINT)
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=1)
    parser.add_argument("--rate", type=float, default=20, help="requests a second, at most")
    parser.add_argument("--binary", type=Path, default=os.environ.get("HOLDFAST_BIN", "target/release/holdfast"))
    parser.add_argument("--emulators", type=Path,
                        default=os.environ.get("HOLDFAST_EMULATORS", "target/release/holdfast-emulators"))
    parser.add_argument("--model", type=Path, default=os.environ.get("HOLDFAST_TEST_MODEL"),
                        help="GGUF file for the embedded engine; without it there is none")
    parser.add_argument("--csv", type=Path, default="target/soak.csv")
    arguments = parser.parse_args()
    if arguments.hours * 3600 < 9 * SAMPLE_SECONDS:
        parser.error("three thirds need at least 0.025 hours")
    arguments.csv.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with open(folder / "log", "w+") as log:
            problems = run(arguments, folder, log)
            if problems:
                print(tail(log), file=sys.stderr)
    print(f"measurements: {arguments.csv}")
    for problem in problems:
        print(f"soak: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
