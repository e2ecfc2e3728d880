#!/usr/bin/env python3
"""Gives every fuzz target what it begins with: all fixtures of `protocol`, the files in `fuzz/seeds`, and a dictionary of
its dialect's words.

Each target gets the fixtures of all dialects, because libFuzzer itself keeps only those that lead somewhere new.
usage: fuzz_corpus.py TARGET...
"""

import re
import struct
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOCOL = ROOT / "crates/protocol"
SEEDS = ROOT / "fuzz/seeds"
CORPUS = ROOT / "fuzz/corpus"

# Where the words of a target stand, by what its name contains; the first that fits counts.
FOLDERS = {
    "responses": "responses",
    "openai": "openai",
    "ark_context": "openai",
    "anthropic": "anthropic",
    "gemini": "gemini",
    "bedrock": "bedrock",
}
# The words of targets without a dialect.
PLAIN_WORDS = ["data: ", "event: ", "id: ", ": ", "ctx-", "cachedContents/", "projects/", "/locations/"]


def frames(lines):
    """The bytes of AWS's event stream that a `.frames` fixture describes."""
    out = b""
    for line in filter(None, lines.split(b"\n")):
        kind, name, rest = (line.split(b" ", 2) + [b""])[:3]
        headers = {b":message-type": kind}
        if kind == b"error":
            headers |= {b":error-code": name, b":error-message": rest}
            rest = b""
        else:
            headers[b":" + kind + b"-type"] = name
        packed = b"".join(
            struct.pack(">B", len(key)) + key + struct.pack(">BH", 7, len(value)) + value
            for key, value in headers.items()
        )
        prelude = struct.pack(">II", len(packed) + len(rest) + 16, len(packed))
        message = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + rest
        out += message + struct.pack(">I", zlib.crc32(message))
    return out


def seeds():
    """Every fixture, every seed, and what a fixture consists of."""
    fixtures = PROTOCOL / "fixtures"
    for path in [*sorted(fixtures.rglob("*")), *sorted(SEEDS.iterdir())]:
        if path.is_dir() or path.name.endswith(".expected.txt"):
            continue
        name, data = "_".join(path.relative_to(ROOT).parts[2:]), path.read_bytes()
        yield name, data
        if path.suffix == ".frames":
            yield f"{name}.bin", frames(data)
        if path.suffix == ".sse":
            # What a stream says in its events, others say in a body.
            for number, event in enumerate(re.findall(rb"^data: *(\{.*\})", data, re.MULTILINE)):
                yield f"{name}.{number}", event


def dictionary(target):
    """The strings of the dialect's source, as JSON strings: its keys, words and names of events."""
    folder = next((folder for part, folder in FOLDERS.items() if part in target), None)
    if folder is None:
        return PLAIN_WORDS
    words = set()
    for path in (PROTOCOL / "src/dialect").rglob("*.rs"):
        if folder in path.relative_to(PROTOCOL).as_posix() and "test" not in path.as_posix():
            words |= set(re.findall(r'"([A-Za-z][A-Za-z0-9_.:\[\]-]{1,60})"', path.read_text()))
            # Names of fields that serde reads.
            names = re.findall(r"^    (?:pub\(super\) )?([a-z_]+): Option<", path.read_text(), re.MULTILINE)
            words |= {re.sub(r"_([a-z])", lambda found: found[1].upper(), name) for name in names}
    return [f'"{word}"' for word in sorted(words)]


def main():
    files = list(seeds())
    for target in sys.argv[1:]:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files:
            (folder / name).write_bytes(data)
        words = [word.replace('"', '\\"') for word in dictionary(target)]
        (CORPUS / f"{target}.dict").write_text("".join(f'"{word}"\n' for word in words))


main()
