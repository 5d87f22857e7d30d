#!/usr/bin/env python3
"""One row for each way a kernel was booted: what was captured, what differs, and whether placement is right. README.md tells how."""

import argparse
import hashlib
import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare
from kernel_tree import KernelTree
from placement import is_predictable, placement

COLUMNS = ["kernel", "CPU", "command line", "modules", "bytes", "differ", "run-time state", "placement"]


def hash_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def rows_of(path):
    """The newest row of each set."""
    rows = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                rows[row["set"]] = row
    return rows


def command_row(arguments):
    """Compares a set and adds its row; not again for the same program and the same set."""
    name = os.path.basename(os.path.abspath(arguments.set))
    of = [hash_of(arguments.kmodld), hash_of(os.path.join(arguments.set, "set.json"))]
    row = rows_of(arguments.rows).get(name)
    if row is None or row["of"] != of:
        row = {"set": name, "of": of, **compared(arguments)}
        with open(arguments.rows, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    print(f"{name}: {' | '.join(cells(row))}")
    return 0 if is_good(row) else 1


def compared(arguments):
    with tempfile.TemporaryDirectory(prefix="oracle") as scratch:
        captured = compare.Set.of(arguments.kmodld, arguments.set, KernelTree(arguments.kernel).image, scratch)
        facts = captured.facts
        row = {
            "release": facts["kernel"],
            "arch": facts["arch"],
            "cpu": facts["cpu"],
            "smp": facts["smp"],
            "cmdline": facts["cmdline"],
            "asked": len(facts["loads"]),
            "stages": {},
        }
        for stage in arguments.stage or compare.stages_of(arguments.kmodld):
            found = compare.compare_stage(captured, arguments.kmodld, stage)
            row["stages"][stage] = {
                "modules": found.total,
                "exact": found.exact,
                "bytes": found.size,
                "differ": found.differ,
                "runtime": sum(found.runtime.values()),
            }
        if is_predictable(captured):
            where = placement(captured, arguments.kmodld)
            row["placement"] = str(where)
            if not where.exact:
                print(f"  placement: {where.first_wrong}")
    return row


def is_good(row):
    stages = row["stages"].values()
    captured = all(s["modules"] == row["asked"] for s in stages)
    return bool(stages) and captured and all(s["exact"] == s["modules"] for s in stages) and row.get("placement", "right") == "right"


def cells(row):
    """What the table says of a set. `differ` is that of the worst stage."""
    stages = row["stages"].values()
    final = row["stages"].get("final") or list(stages)[-1]
    asked = "" if final["modules"] == row["asked"] else f" of {row['asked']}"
    # What the oracle itself adds for its console is of no interest.
    own = ("console=", "panic=", "no_timer_check")
    words = [w for w in row["cmdline"].split() if not w.startswith(own)]
    cpus = f", {row['smp']} CPUs" if row["smp"] > 1 else ""
    return [
        row["release"],
        row["cpu"] + cpus,
        f"`{' '.join(words)}`" if words else "",
        f"{final['modules']}{asked}",
        f"{final['bytes']:,}",
        f"{max(s['differ'] for s in stages):,}",
        f"{final['runtime']:,}",
        row.get("placement", "random"),
    ]


def command_table(arguments):
    rows = [row for path in arguments.rows for row in rows_of(path).values()]
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---|---|---|---:|---:|---:|---:|---|")

    def order(row):
        numbers = [int(n) for n in row["release"].split("-")[0].split("+")[0].split(".")]
        return numbers, row["arch"], row["release"], row["set"]

    for row in sorted(rows, key=order):
        print(f"| {' | '.join(cells(row))} |")
    return 0 if rows and all(map(is_good, rows)) else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sub = commands.add_parser("row", help="compare a captured set, unless that was done, and add its row")
    sub.set_defaults(run=command_row)
    sub.add_argument("--kernel", required=True, help="the tree it was captured from")
    sub.add_argument("--kmodld", required=True, help="the program")
    sub.add_argument("--rows", required=True, help="file that the row is added to")
    sub.add_argument("--stage", action="append", default=[], help="repeatable (default: all that kmodld has)")
    sub.add_argument("set", help="folder that oracle.py capture has made")
    sub = commands.add_parser("table", help="the rows as a table; exit status 1 if one is not exact")
    sub.set_defaults(run=command_table)
    sub.add_argument("rows", nargs="+")
    arguments = parser.parse_args()
    sys.exit(arguments.run(arguments))


if __name__ == "__main__":
    main()
