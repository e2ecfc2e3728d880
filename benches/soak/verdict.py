"""What is measured, and what must not have grown or be missing in the end."""

import os
import statistics
import time
from pathlib import Path


def measure(process, folder, client):
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
    )
    size = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                size += os.stat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                pass  # Files of the spool come and go.
    return {
        "rss_mib": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "descriptors": len(os.listdir(f"/proc/{process}/fd")),
        "threads": int(status["Threads"]),
        "data_mib": round(size / 2**20, 2),
        "rows_waiting": metric(client, "holdfast_ledger_rows_waiting"),
    }


def metric(client, name):
    _, text = client.call("GET", "/metrics")
    lines = (line.split(" ") for line in text.decode().splitlines())
    return next(int(words[1]) for words in lines if words[0] == name)


def percentile(values, percent):
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def grown(samples):
    """What has grown from the second third to the last one, as sentences."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]

    def medians(column):
        thirds = [[row[column] for row in part if row.get(column) is not None] for part in (middle, last)]
        return [statistics.median(values) for values in thirds] if all(thirds) else None

    limits = [("rss_mib", lambda before: before * 1.1 + 8),
              ("descriptors", lambda before: before + 8),
              ("threads", lambda before: before + 8)]
    columns = sorted({column for row in samples for column in row if column.endswith("_p50_ms")})
    limits += [(column, lambda before: before * 1.5 + 1) for column in columns]
    for column, limit in limits:
        if values := medians(column):
            before, after = values
            print(f"{column}: {before:g} in the second third, {after:g} in the last")
            if after > limit(before):
                yield f"{column} has grown from {before:g} to {after:g}"


def missing_rows(load, admin):
    """Which project's ledger has not one row for each request."""
    deadline = time.monotonic() + 60
    while metric(admin, "holdfast_ledger_rows_waiting") > 0 and time.monotonic() < deadline:
        time.sleep(0.2)
    for project, sent in sorted(load.rows.items()):
        totals = admin.json("GET", f"/v1/usage?project={project}")["totals"]
        outcomes = ", ".join(f"{totals[it]} {it}" for it in ("completed", "cancelled", "failed", "refused"))
        print(f"{project}: {sent} requests, {totals['requests']} rows: {outcomes}")
        if totals["requests"] != sent:
            yield f"the ledger of {project} has {totals['requests']} rows for {sent} requests"
        for budget in admin.json("GET", f"/v1/budgets?project={project}")["data"]:
            if float(budget["reserved"]) != 0:
                yield f"the budget of {project} still holds back {budget['reserved']}"
