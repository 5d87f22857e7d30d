#!/usr/bin/env python3
"""Every crate that kmodld is built from has a licence that deny.toml allows and comes from crates.io.

By what the crates say of themselves. The part of `cargo deny check` that needs neither cargo-deny nor a network;
deny.toml is the one list of both.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def allowed(expression: str, allow: set[str]) -> bool:
    """Does an SPDX expression hold if just the licences of `allow` do? "/" is what older crates write for OR."""
    words = iter(re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR ")))
    python = ""
    for word in words:
        if word in "()":
            python += word
        elif word in ("AND", "OR"):
            python += f" {word.lower()} "
        elif word == "WITH":
            # An exception only ever permits more.
            next(words)
        else:
            python += str(word in allow)
    # Nothing but parentheses, and, or, True and False is in it.
    return bool(eval(python, {"__builtins__": {}}))


def main() -> int:
    deny = tomllib.loads((ROOT / "deny.toml").read_text())
    allow = set(deny["licenses"]["allow"])
    metadata = ["cargo", "metadata", "--locked", "--format-version", "1", "--all-features"]
    for target in deny["graph"]["targets"]:
        metadata += ["--filter-platform", target]
    packages = json.loads(subprocess.run(metadata, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    wrong = 0
    for package in packages:
        name, licence, source = package["name"], package["license"], package["source"]
        if licence is None or not allowed(licence, allow):
            print(f"{name} {package['version']}: licence {licence!r} is not allowed by deny.toml")
            wrong += 1
        if source not in (None, CRATES_IO):
            print(f"{name} {package['version']}: comes from {source}")
            wrong += 1
    print(f"{len(packages)} packages, {wrong} objections")
    return 1 if wrong or not packages else 0


if __name__ == "__main__":
    sys.exit(main())
