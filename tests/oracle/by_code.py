#!/usr/bin/env python3
"""Verdicts of kmodld's rules on mutated modules, against those of the kernel's own code as kmodld executes it. README.md tells how.

No kernel is booted in QEMU, so thousands of mutants take a minute. What differs is for `verdicts.py replay` to decide."""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from bases import kept
from judge import place_of_snapshots
from kernel_tree import KernelTree, fetch
from machine import MACHINES
from mutate import mutant
from verdicts import APPEND, classify, options, sign

CLASSES = ["same", "false yes", "false no", "other errno", "log only", "rules undecided", "code undecided"]
# Groups of what is undecided that are printed.
SHOWN = 8


def side(answer):
    """One of two verdicts, as verdicts.py has them."""
    verdict = answer["errno"] if answer["verdict"] == "refused" else answer["verdict"]
    end = {"refused": "refused", "loads": "init"}.get(answer["verdict"], answer["verdict"])
    return {"verdict": verdict, "end": end, "log": answer["dmesg"]}


def marked(answer):
    """The log of the kernel's code, with warnings as judge.py marks them."""
    lines = [("[warned] " if at in answer["warnings"] else "") + line for at, line in enumerate(answer["dmesg"])]
    return {**side(answer), "log": lines}


class Comparison:
    """Mutants of one kernel and one seed. Rows lie in FOLDER/RELEASE-SEED.code.jsonl."""

    def __init__(self, arguments, path):
        self.tree = KernelTree(path)
        self.arguments = arguments
        self.arch = self.tree.release.rpartition("-")[2]
        os.makedirs(arguments.out, exist_ok=True)
        everything = kept(os.path.join(arguments.out, f"{self.tree.release}.bases"), self.tree, self.arch)
        self.bases = {n: b for n, b in everything.items() if not arguments.base or n in arguments.base.split(",")}
        self.data = {n: b.data for n, b in self.bases.items()}
        machine = MACHINES[self.tree.elf(min(self.tree.names())).machine]
        self.cmdline = f"{machine.boot} panic=-1 {APPEND} {arguments.append}".strip()
        self.seconds = Counter()

    def made(self, numbers):
        """Mutants by what has to be loaded before: the same bytes once."""
        begun, groups, seen = time.monotonic(), {}, set()
        for index in numbers:
            name, change = mutant(self.arguments.seed, index, self.data)
            sha = hashlib.sha256(change.data).hexdigest()[:16]
            if sha not in seen:
                seen.add(sha)
                needs = tuple(n for n, _ in self.bases[name].needs)
                groups.setdefault(needs, []).append((index, self.bases[name], change, sha))
        self.seconds["generator"] += time.monotonic() - begun
        return groups

    def judged(self, group, folder):
        """The answers on a group of mutants."""
        begun = time.monotonic()
        paths = []
        for index, base, change, _ in group:
            paths.append(os.path.join(folder, str(index), f"{base.name}.ko"))
            os.mkdir(os.path.dirname(paths[-1]))
            with open(paths[-1], "wb") as file:
                file.write(change.data)
        argv = [self.arguments.kmodld, "check", "--judge=both", "--jsonl", "--each", "--no-deps", "-j", str(self.arguments.jobs)]
        argv += ["--kernel", self.tree.image, "--cmdline", self.cmdline, "--files-from", "-"]
        for name, data in group[0][1].needs:
            argv += ["--with", os.path.join(folder, f"{name}.ko")]
            with open(argv[-1], "wb") as file:
                file.write(data)
        self.seconds["files"] += time.monotonic() - begun
        begun = time.monotonic()
        run = subprocess.run(argv, input="\n".join(paths).encode(), stdout=subprocess.PIPE, check=False)
        self.seconds["kmodld"] += time.monotonic() - begun
        answers = {}
        for line in run.stdout.splitlines():
            answer = json.loads(line)
            answers[answer["file"]] = answer
        lost = [p for p in paths if p not in answers]
        if lost:
            raise SystemExit(f"kmodld (exit {run.returncode}) has no answer on {len(lost)} modules, such as {lost[0]}")
        return [answers[path] for path in paths]

    def row(self, mutant_of, answer):
        index, base, change, sha = mutant_of
        rules, code = side(answer), marked(answer["by_kernel"])
        if code["verdict"] == "undecided":
            kind = "code undecided"
        elif rules["verdict"] == "undecided":
            kind = "rules undecided"
        else:
            kind = classify(code, rules)
            if (kind == "same") != (not answer["by_kernel"]["differs"]):
                print(f"{self.arguments.seed}:{index}: {kind}, but kmodld says {answer['by_kernel']['differs']}", file=sys.stderr)
        codes = [f["code"] for f in answer["findings"] if f["severity"] == "error"]
        unjudged = answer.get("unjudged", [])
        return {
            "index": index,
            "seed": self.arguments.seed,
            "kernel_release": self.tree.release,
            "base": base.name,
            "kind": change.kind,
            "place": change.place,
            "field": change.field,
            "name": change.name,
            "sha": sha,
            "class": kind,
            "kernel": {**code, "stopped": answer["by_kernel"]["stopped"]},
            "kmodld": {**rules, "codes": codes[:6], "unjudged": unjudged},
            "instructions": answer["by_kernel"]["instructions"],
        }

    def run(self):
        arguments, rows = self.arguments, []
        done = arguments.start
        while done < arguments.start + arguments.count:
            numbers = range(done, min(done + arguments.batch, arguments.start + arguments.count))
            done = numbers.stop
            for group in self.made(numbers).values():
                folder = tempfile.mkdtemp(prefix="by-code", dir=arguments.scratch or place_of_snapshots())
                try:
                    rows += [self.row(*pair) for pair in zip(group, self.judged(group, folder))]
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
        rows.sort(key=lambda row: row["index"])
        path = os.path.join(arguments.out, f"{self.tree.release}-{arguments.seed}.code.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return rows


def of_row(row):
    """What a row differs by."""
    if row["class"] == "code undecided":
        return (row["kernel"]["stopped"] or "").split(" (0x")[0]
    return sign({**row, "class": "undecided"} if row["class"] == "rules undecided" else row)


def tell(rows, seconds):
    groups = {}
    for row in rows:
        if row["class"] != "same":
            key = (row["class"], row["kernel"]["verdict"], row["kmodld"]["verdict"], of_row(row))
            groups.setdefault(key, []).append(row)
    shown = Counter()
    for key, members in sorted(groups.items(), key=lambda g: (CLASSES.index(g[0][0]), -len(g[1]))):
        shown[key[0]] += 1
        if "undecided" in key[0] and shown[key[0]] > SHOWN:
            continue
        print(f"{len(members):4} {key[0]}: code {key[1]}, rules {key[2]}; {key[3]}")
        places = Counter(f"{r['kind']} {r['place']}.{r['field']}" for r in members)
        for place, count in places.most_common(4):
            row = next(r for r in members if place == f"{r['kind']} {r['place']}.{r['field']}")
            stopped = f"; {row['kernel']['stopped']}" if row["kernel"]["stopped"] else ""
            print(f"        {count:4} {place}; {row['seed']}:{row['index']} of {row['base']} {row['kmodld']['codes']}{stopped}")
    counts = Counter(row["class"] for row in rows)
    print(f"{rows[0]['kernel_release']}, seed {rows[0]['seed']}: {len(rows)} mutants, " + ", ".join(f"{counts[n]} {n}" for n in CLASSES))
    spent = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    print(f"{len(rows) / sum(seconds.values()):.0f} mutants a second ({spent})")
    return 1 if counts["false yes"] + counts["false no"] + counts["other errno"] else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    options(parser)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0, help="the first index (default: 0)")
    parser.add_argument("--batch", type=int, default=10000, help="so many mutants lie in the scratch folder (default: 10000)")
    parser.add_argument("--jobs", type=int, default=2, help="threads of kmodld (default: 2)")
    parser.add_argument("--scratch", default="", help="folder for mutants (default: one in memory, if it has room)")
    arguments = parser.parse_args()
    path = arguments.kernel if os.path.isdir(arguments.kernel) else fetch(arguments.kernel, arguments.cache)
    job = Comparison(arguments, path)
    sys.exit(tell(job.run(), job.seconds))


if __name__ == "__main__":
    main()
