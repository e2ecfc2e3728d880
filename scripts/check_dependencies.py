#!/usr/bin/env python3
"""Checks every locked dependency offline: licence, origin, and versions with a known defect.

What is allowed stands in deny.toml, in cargo-deny's own format, so that cargo-deny can be run on it as well.
Needs nothing but cargo and Python 3.11.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def allowed(expression, licences):
    """Whether an SPDX expression can be satisfied with the allowed licences."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def term(at):
        if tokens[at] == "(":
            value, at = either(at + 1)
            return value, at + 1
        name, at = tokens[at], at + 1
        if at < len(tokens) and tokens[at] == "WITH":
            name, at = f"{name} WITH {tokens[at + 1]}", at + 2
        return name in licences, at

    def both(at):
        value, at = term(at)
        while at < len(tokens) and tokens[at] == "AND":
            other, at = term(at + 1)
            value = value and other
        return value, at

    def either(at):
        value, at = both(at)
        while at < len(tokens) and tokens[at] == "OR":
            other, at = both(at + 1)
            value = value or other
        return value, at

    return either(0)[0]


def numbers(version):
    return tuple(int(part) for part in re.split(r"[.+-]", version)[:3] if part.isdigit())


def matches(version, requirement):
    """Whether a version is within a requirement such as `<1.2.3`, `=1.2.3` or `*`."""
    if requirement == "*":
        return True
    operator, bound = re.fullmatch(r"(<=?|=|>=?)\s*(\S+)", requirement).groups()
    have, want = numbers(version), numbers(bound)
    return {"<": have < want, "<=": have <= want, "=": have == want, ">": have > want, ">=": have >= want}[operator]


def main():
    deny = tomllib.loads((ROOT / "deny.toml").read_text())
    licences = set(deny["licenses"]["allow"])
    clarified = {row["crate"]: row["expression"] for row in deny["licenses"].get("clarify", [])}
    banned = [(*row["crate"].split("@", 1), row["reason"]) for row in deny["bans"]["deny"]]
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    packages = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)["packages"]

    problems = []
    for package in packages:
        label = f"{package['name']} {package['version']}"
        if package["source"] not in (None, REGISTRY):
            problems.append(f"{label}: comes from {package['source']}, not from crates.io")
        expression = clarified.get(package["name"], package["license"])
        if expression is None:
            problems.append(f"{label}: names no licence")
        elif not allowed(expression, licences):
            problems.append(f"{label}: licence {expression} is not allowed by deny.toml")
        for name, requirement, reason in banned:
            if package["name"] == name and matches(package["version"], requirement):
                problems.append(f"{label}: {reason}")

    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(packages)} packages checked, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
