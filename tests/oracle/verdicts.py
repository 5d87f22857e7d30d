#!/usr/bin/env python3
"""Verdicts of `kmodld check` on mutated modules, against those of a booted kernel. README.md tells how."""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from bases import kept
from judge import CRASH, WARNED, Judge
from kernel_tree import ROOT, KernelTree, fetch
from machine import MACHINES
from mutate import mutant

# Nobody watches over time: it leaps when a snapshot is restored.
APPEND = "nokaslr loglevel=8 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 tsc=unstable"
CLASSES = ["same", "false yes", "false no", "other errno", "log only", "undecided"]
NUMBER = re.compile(r"\b(0x)?[0-9a-f]{9,16}\b")
def clean(lines, crashed, warnings=True):
    """What the loader said, with the kernel's pointers made equal. The messages of warnings may be left out."""
    out = []
    for line in lines:
        if crashed and CRASH.search(line):
            break
        if line.startswith(WARNED) and not warnings:
            continue
        line = re.sub(r"\bloc [0-9a-fx]+", "loc PTR", line.removeprefix(WARNED))
        # Bytes that are no ASCII differ by how they are written.
        out.append(re.sub(r"[^\x00-\x7f]+", "?", NUMBER.sub("N", line)))
    return out


class Kmodld:
    """`kmodld check`, a process for each module: in one, modules would serve each other as those loaded before."""

    def __init__(self, program, spec, cmdline, folder):
        self.program, self.spec, self.cmdline, self.folder = program, spec, cmdline, folder
        # Those of the guest, once it is known.
        self.capabilities = []

    def check(self, base, data):
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            path = os.path.join(folder, f"{base.name}.ko")
            with open(path, "wb") as file:
                file.write(data)
            argv = [self.program, "check", path, "--kernel", self.spec, "--cmdline", self.cmdline, "--jsonl", *self.capabilities]
            for name, needed in base.needs:
                argv += ["--with", os.path.join(folder, f"{name}.ko.with", f"{name}.ko")]
                os.mkdir(os.path.dirname(argv[-1]))
                with open(argv[-1], "wb") as file:
                    file.write(needed)
            try:
                run = subprocess.run(argv, capture_output=True, timeout=60)
            except subprocess.TimeoutExpired:
                return {"verdict": "no answer in 60 s", "log": [], "codes": []}
        try:
            answer = json.loads(run.stdout.decode("utf-8", "replace").splitlines()[0])
        except (IndexError, ValueError):
            said = run.stderr.decode("utf-8", "replace")[-300:]
            return {"verdict": f"exit {run.returncode}", "log": [said], "codes": []}
        verdict = answer["errno"] if answer["verdict"] == "refused" else answer["verdict"]
        codes = [f["code"] for f in answer["findings"] if f["severity"] == "error"]
        row = {"verdict": verdict, "log": answer["dmesg"], "codes": codes[:6]}
        if answer.get("unjudged"):
            row["unjudged"] = answer["unjudged"]
        return row


def classify(kernel, kmodld):
    """Which of CLASSES. Both are {"verdict", "log"}."""
    want, got = kernel["verdict"], kmodld["verdict"]
    if got == "undecided":
        return "undecided"
    if want != got:
        return "false yes" if got == "loads" else "false no" if want == "loads" else "other errno"
    crashed = kernel["end"] not in ("init", "loaded", "refused")
    said = clean(kmodld["log"], crashed)
    same = any(clean(kernel["log"], crashed, warnings) == said for warnings in (True, False))
    return "same" if same else "log only"


def answer_row(answer):
    row = {"verdict": answer.verdict, "end": answer.end, "log": answer.log[:400]}
    return {**row, "crash": answer.crash} if answer.crash else row


class Campaign:
    """Mutants of one kernel and one seed. Rows lie in FOLDER/RELEASE-SEED.jsonl, and a run goes on where the last one ended."""

    def __init__(self, arguments, path):
        self.tree = KernelTree(path)
        self.arch = self.tree.release.rpartition("-")[2]
        self.seed = arguments.seed
        self.out = os.path.abspath(arguments.out)
        os.makedirs(self.out, exist_ok=True)
        everything = kept(os.path.join(self.out, f"{self.tree.release}.bases"), self.tree, self.arch)
        self.bases = {n: b for n, b in everything.items() if not arguments.base or n in arguments.base.split(",")}
        if not self.bases:
            raise SystemExit(f"no such base; there are {', '.join(everything)}")
        self.machine = MACHINES[self.tree.elf(min(self.tree.names())).machine]
        self.append = f"{APPEND} {arguments.append}".strip()
        self.judge = Judge(self.tree, self.machine, self.append, arguments.memory)
        spec = os.path.join(self.out, f"{self.tree.release}.spec")
        program = os.path.abspath(arguments.kmodld)
        subprocess.run([program, "kernel", self.tree.image, "-o", spec], check=True, stdout=subprocess.DEVNULL)
        self.kmodld = Kmodld(program, spec, f"{self.machine.boot} panic=-1 {self.append}", self.out)
        with open(program, "rb") as file:
            self.program = hashlib.sha256(file.read()).hexdigest()[:16]
        self.rows = os.path.join(self.out, f"{self.tree.release}-{self.seed}.jsonl")
        self.learn_capabilities()

    def learn_capabilities(self):
        """Tells kmodld of the guest's CPU what a boot has shown; `again` boots none."""
        path = os.path.join(self.out, f"{self.tree.release}.capabilities")
        if self.judge.capabilities is not None:
            with open(path, "w", encoding="ascii") as file:
                file.write(self.judge.capabilities)
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                self.kmodld.capabilities = ["--cpu-caps", file.read()]

    def mutant(self, index):
        name, made = mutant(self.seed, index, {n: b.data for n, b in self.bases.items()})
        return self.bases[name], made

    def load_rows(self):
        if not os.path.exists(self.rows):
            return []
        with open(self.rows, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def row(self, index, base, made, kernel, kmodld):
        return {
            "index": index,
            "seed": self.seed,
            "kernel_release": self.tree.release,
            "base": base.name,
            "kind": made.kind,
            "place": made.place,
            "field": made.field,
            "name": made.name,
            "sha": hashlib.sha256(made.data).hexdigest()[:16],
            "class": classify(kernel, kmodld),
            "kernel": kernel,
            "kmodld": kmodld,
            "program": self.program,
        }

    def compared(self, index, base, made, checker):
        """One mutant's row."""

        def judged(**how):
            return answer_row(self.judge.judge(made.data, base.needs, **how))

        answer = checker.submit(self.kmodld.check, base, made.data)
        kernel = judged()
        row = self.row(index, base, made, kernel, answer.result())
        if index % 20 and row["class"] in ("same", "undecided"):
            return row
        stirred = judged(stirred=True)
        if not (steady := same_answer(kernel, stirred)) and not same_answer(kernel, second := judged()):
            # The same state gave two answers: the oracle's fault. Two of three count.
            third = judged()
            row = self.row(index, base, made, third if same_answer(second, third) else kernel, answer.result())
            row["flake"] = [kernel, second, third]
            steady = same_answer(row["kernel"], stirred)
        row["again"] = steady
        if not steady:
            row["kernel_again"] = stirred
        return row

    def run(self, count):
        rows = self.load_rows()
        seen = {r["sha"] for r in rows}
        start = rows[-1]["index"] + 1 if rows else 0
        if not rows or not self.kmodld.capabilities:
            self.control()
        done = 0
        with open(self.rows, "a", encoding="utf-8") as file, ThreadPoolExecutor(1) as checker:
            index = start
            while len(rows) + done < count:
                base, made = self.mutant(index)
                sha = hashlib.sha256(made.data).hexdigest()[:16]
                if sha not in seen:
                    seen.add(sha)
                    began = time.monotonic()
                    row = self.compared(index, base, made, checker)
                    row["seconds"] = round(time.monotonic() - began, 3)
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    done += 1
                index += 1
        self.judge.close()

    def control(self):
        """Every base has to be judged as it is."""
        for base in self.bases.values():
            kernel = answer_row(self.judge.judge(base.data, base.needs))
            kmodld = self.kmodld.check(base, base.data)
            if (what := classify(kernel, kmodld)) != "same":
                print(f"{self.tree.release}: base {base.name}: {what}: {kernel} {kmodld}", file=sys.stderr)
        self.learn_capabilities()

    def again(self):
        """Asks this kmodld about what another one was asked; the kernel's answers stay as they are."""

        def fresh(row):
            base, made = self.mutant(row["index"])
            if hashlib.sha256(made.data).hexdigest()[:16] != row["sha"]:
                return None  # the mutator or the base is another one by now
            if row.get("program") != self.program:
                row["kmodld"] = self.kmodld.check(base, made.data)
                row["program"] = self.program
            row["class"] = classify(row["kernel"], row["kmodld"])
            return row

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = [r for r in pool.map(fresh, self.load_rows()) if r]
        with open(self.rows + ".new", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        os.rename(self.rows + ".new", self.rows)


def same_answer(one, two):
    crashed = one["end"] not in ("init", "loaded", "refused")
    return one["verdict"] == two["verdict"] and clean(one["log"], crashed) == clean(two["log"], crashed)


def figures(rows):
    """The numbers of a campaign by name, in the order of the table."""
    counts = Counter(r["class"] for r in rows)
    seconds = sum(r["seconds"] for r in rows)
    return {
        "mutants": len(rows),
        **{name: counts[name] for name in CLASSES},
        "unsteady": sum(1 for r in rows if r.get("again") is False),
        "flakes": sum(1 for r in rows if r.get("flake")),
        "a second": round(len(rows) / seconds, 1) if seconds else 0,
    }


def sign(row):
    """What a difference is known by: the first line of one log that the other has not, or what kmodld could not judge."""
    if row["class"] == "undecided":
        return ", ".join(sorted({str(u.get("code", u)) for u in row["kmodld"].get("unjudged", [])}))
    kernel, kmodld = (clean(row[side]["log"], True) for side in ("kernel", "kmodld"))
    for who, lines, others in (("kernel", kernel, kmodld), ("kmodld", kmodld, kernel)):
        for line in lines:
            if line not in others:
                text = re.sub(r"'[^']*'|`[^']*'|\bval \S+|\d+", "..", re.sub(r"^[^:]*: (?!cannot)", "MODULE: ", line))
                return f"{who}: {text[:100]}"
    return ""


def grouped(rows):
    """What differs, by class, both verdicts and its sign: a fault shows in many rows, and in many places."""
    groups = {}
    for row in rows:
        if row["class"] != "same":
            key = (row["class"], row["kernel"]["verdict"], row["kmodld"]["verdict"], sign(row))
            groups.setdefault(key, []).append(row)
    ordered = sorted(groups.items(), key=lambda g: (CLASSES.index(g[0][0]), -len(g[1])))
    listed = []
    for key, rows in ordered:
        places = Counter(f"{r['kind']} {r['place']}.{r['field']}" for r in rows)
        group = dict(zip(("class", "kernel", "kmodld", "sign"), key))
        listed.append({**group, "count": len(rows), "places": places, "rows": rows})
    return listed


def good(numbers):
    """What has to hold: no verdict differs, 99.5 % of the logs are equal, and no more than 1 % is undecided."""
    wrong = numbers["false yes"] + numbers["false no"] + numbers["other errno"]
    return not wrong and 200 * numbers["log only"] <= numbers["mutants"] and 100 * numbers["undecided"] <= numbers["mutants"]


def options(parser):
    cache = os.environ.get("KMODLD_KERNELS", os.path.join(ROOT, "target", "kernels"))
    kmodld = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "kmodld")
    parser.add_argument("--kernel", required=True, help="a tree of fetch-kernels.sh, or SERIES-FLAVOUR to fetch")
    parser.add_argument("--cache", default=cache, help="where fetched kernels are kept (default: KMODLD_KERNELS)")
    parser.add_argument("--kmodld", default=kmodld, help="the program (default: target/release/kmodld)")
    parser.add_argument("--out", default=os.path.join(ROOT, "target", "verdicts"), help="folder of the rows (default: target/verdicts)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--base", default="", help="only mutants of these, separated by commas")
    parser.add_argument("--append", default="", help="more of a kernel command line")
    parser.add_argument("--memory", type=int, default=256, help="MiB of the guest (default: 256)")


def campaign(arguments):
    path = arguments.kernel
    if not os.path.isdir(path):
        path = fetch(path, arguments.cache)
    return Campaign(arguments, path)


def tell(job):
    """Prints the figures of a campaign, and writes its groups."""
    rows = job.load_rows()
    groups = grouped(rows)
    with open(job.rows.removesuffix(".jsonl") + ".groups.json", "w", encoding="utf-8") as file:
        json.dump(groups, file, indent=1)
    numbers = figures(rows)
    for group in groups:
        print(f"{group['count']:4} {group['class']}: kernel {group['kernel']}, kmodld {group['kmodld']}; {group['sign']}")
        for place, count in group["places"].most_common(8):
            row = next(r for r in group["rows"] if place == f"{r['kind']} {r['place']}.{r['field']}")
            print(f"        {count:4} {place}; {row['seed']}:{row['index']} of {row['base']}")
    print(f"{job.tree.release}, seed {job.seed}: {', '.join(f'{n} {name}' for name, n in numbers.items())}")
    return 0 if good(numbers) else 1


def command_run(arguments):
    job = campaign(arguments)
    try:
        job.run(arguments.count)
    finally:
        job.judge.close()
    job.again()
    return tell(job)


def command_again(arguments):
    job = campaign(arguments)
    job.again()
    return tell(job)


def command_table(arguments):
    """A line for each kernel and seed, for people."""
    names = list(figures([{"class": "same", "seconds": 1}]))
    print(f"| kernel | seed | {' | '.join(names)} |")
    print(f"|---|{'---:|' * (len(names) + 1)}")
    total = []
    for path in arguments.rows:
        with open(path, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        total += rows
        numbers = figures(rows)
        print(f"| {rows[0]['kernel_release']} | {rows[0]['seed']} | {' | '.join(str(numbers[n]) for n in names)} |")
    print(f"| all | | {' | '.join(str(n) for n in figures(total).values())} |")
    return 0 if good(figures(total)) else 1


def command_replay(arguments):
    job = campaign(arguments)
    job.seed, _, index = arguments.mutant.partition(":")
    job.seed = int(job.seed)
    base, made = job.mutant(int(index))
    if arguments.save:
        with open(arguments.save, "wb") as file:
            file.write(made.data)
    try:
        with ThreadPoolExecutor(1) as checker:
            print(json.dumps(job.compared(int(index), base, made, checker), indent=1))
    finally:
        job.judge.close()
    return 0


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the guest is ended
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sub = commands.add_parser("run", help="judge so many mutants, and go on where an earlier run ended")
    sub.set_defaults(run=command_run)
    options(sub)
    sub.add_argument("--count", type=int, default=1000)

    sub = commands.add_parser("again", help="ask kmodld once more about what the kernel has judged")
    sub.set_defaults(run=command_again)
    options(sub)

    sub = commands.add_parser("table", help="the figures of campaigns as a table")
    sub.set_defaults(run=command_table)
    sub.add_argument("rows", nargs="+", help="files of rows that run has written")

    sub = commands.add_parser("replay", help="judge one mutant alone")
    sub.set_defaults(run=command_replay)
    options(sub)
    sub.add_argument("--save", default="", help="writes the mutant to this file")
    sub.add_argument("mutant", help="SEED:INDEX, as a row has them")

    arguments = parser.parse_args()
    sys.exit(arguments.run(arguments))


if __name__ == "__main__":
    main()
