#!/usr/bin/env python3
"""Sampled modules of a distribution, loaded and unloaded on the kernel's own code.

    cargo build --release --package kmodld-run --example sample
    tests/oracle/sample.py --kernel KERNELS/6.12.117+deb12-amd64 --seed 1 --count 100 --write docs/run.md

Prints what came of each module that did not initialise and unload. --write puts the figures into a table in the document, in place of
those of the same kernel, seed and count.
"""

import argparse
import collections
import concurrent.futures
import errno
import os
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kernel_tree import ROOT, KernelTree  # noqa: E402

ERRNO = {**errno.errorcode, 524: "ENOTSUPP", 517: "EPROBE_DEFER"}
MARK = "<!-- sample.py: "


def judged(tree, names, example, folder, jobs=1):
    """For each name: how it ended, the result, and the rest of the line. As many processes as `jobs` share the work."""
    paths = {}

    def path(name):
        if name not in paths:
            paths[name] = os.path.join(folder, f"{name}.ko")
            with open(paths[name], "wb") as file:
                file.write(tree.module(name))
        return paths[name]

    lines = [" ".join(path(n) for n in tree.load_order([name])) for name in names]

    def run(part):
        given = "\n".join(part) + "\n"
        return subprocess.run([example, tree.image], input=given, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()

    size = -(-len(lines) // jobs)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        out = [line for part in pool.map(run, (lines[at : at + size] for at in range(0, len(lines), size))) for line in part]
    for name, line in zip(names, out, strict=True):
        said, instructions, warnings = line.rsplit("\t", 2)
        how, _, rest = said.partition(" ")
        yield name, how, rest, int(instructions), int(warnings)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--example", default=os.path.join(ROOT, "target", "release", "examples", "sample"))
    parser.add_argument("--write", metavar="DOCUMENT")
    arguments = parser.parse_args()
    tree = KernelTree(arguments.kernel)
    names = random.Random(arguments.seed).sample(sorted(tree.names()), arguments.count)
    good, errors, stops, warned = 0, collections.Counter(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for name, how, rest, _, warnings in judged(tree, names, arguments.example, folder, arguments.jobs):
            if warnings:
                warned += 1
                print(f"{name}: {warnings} warnings")
            if how == "stopped":
                stops += 1
                print(f"{name}: {rest}")
                continue
            result, _, path = rest.partition(" ")
            if how == "exit" and result == "0":
                good += 1
                continue
            word = ERRNO.get(-int(result), result)
            errors[f"{word} of {'init' if how == 'init' else 'rmmod'}"] += 1
            print(f"{name}: {how} {word} {os.path.basename(path)}")
    others = ", ".join(f"{count} {word}" for word, count in errors.most_common()) or "none"
    row = f"| {tree.release} | {arguments.seed} | {arguments.count} | {good} ({100 * good / arguments.count:.0f} %) | {others} | {stops} | {warned} |"
    print(row)
    if arguments.write:
        with open(arguments.write, encoding="utf-8") as file:
            lines = file.read().split("\n")
        head = row.split("|")[1:4]
        lines = [line for line in lines if line.split("|")[1:4] != head]
        at = next(i for i, line in enumerate(lines) if line.startswith(MARK))
        lines.insert(at, row)
        with open(arguments.write, "w", encoding="utf-8") as file:
            file.write("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
