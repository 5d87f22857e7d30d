"""Compares captured memory with what kmodld makes of the same modules at the same addresses."""

import json
import os
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

from elf import Elf
from kernel_tree import module_name
from runtime_state import THIS_MODULE, holes


def stages_of(kmodld):
    """The stages that the program offers."""
    usage = subprocess.run([kmodld, "link", "--help"], check=True, capture_output=True, text=True).stdout
    return [s for s in ("relocated", "kallsyms", "final") if f"- {s}:" in usage]


@dataclass
class Result:
    """One module at one stage."""

    bytes: int = 0
    error: str = ""
    misplaced: list = field(default_factory=list)
    differing: Counter = field(default_factory=Counter)
    first: dict = field(default_factory=dict)
    runtime: Counter = field(default_factory=Counter)

    @property
    def exact(self):
        return not (self.error or self.misplaced or self.differing)

    def lines(self):
        """What is wrong, for people."""
        if self.error:
            yield self.error
        for name in self.misplaced:
            yield f"section {name} is elsewhere, or has another size"
        for owner, count in self.differing.most_common():
            address, where, want, have = self.first[owner]
            yield f"{owner}: {count} bytes differ, first at {address:#x} ({where}): the kernel has {want}, kmodld {have}"


class Set:
    """A captured set and the kernel it was captured from."""

    def __init__(self, folder, image, scratch):
        self.folder, self.scratch = folder, scratch
        self.image = image
        self.facts = read_json(os.path.join(folder, "set.json"))
        entries = (os.path.join(folder, m) for m in sorted(os.listdir(folder)))
        self.metas = {os.path.basename(m): read_json(f"{m}/meta.json") for m in entries if os.path.exists(f"{m}/meta.json")}

    @classmethod
    def of(cls, kmodld, folder, image, scratch):
        """The set with a SPEC of its kernel, which is sooner read than the image."""
        spec = os.path.join(scratch, "spec")
        subprocess.run([kmodld, "kernel", image, "-o", spec], check=True, stdout=subprocess.DEVNULL)
        return cls(folder, spec, scratch)

    def modules(self):
        """Their names, in the order they were loaded."""
        return sorted(self.metas, key=lambda m: len(self.metas[m]["loaded_before"]))

    def elf(self, name):
        with open(os.path.join(self.folder, name, "module.ko"), "rb") as file:
            return Elf(file.read())

    def dependencies(self, name, found=None):
        """What a module imports from, in loading order."""
        found = [] if found is None else found
        for names in self.elf(name).modinfo("depends"):
            for other in (module_name(n) for n in names.split(",") if n):
                if other in self.metas and other not in found:
                    self.dependencies(other, found)
                    found.append(other)
        return found

    def arguments(self, name, stage, out):
        """The command line of kmodld that repeats a load."""
        meta = self.metas[name]
        arguments = ["link", os.path.join(self.folder, name, "module.ko"), *meta["params"].split()]
        arguments += ["--kernel", self.image, "--symtab", os.path.join(self.folder, "kallsyms.txt")]
        arguments += ["--cmdline", self.facts["cmdline"], "--cpus", str(self.facts["smp"])]
        arguments += ["--stage", stage, "--format", "raw", "-o", out, "--percpu", meta["percpu"]["addr"]]
        for region in meta["regions"]:
            arguments += ["--region", f"{region['name']}={region['base']}"]
        for other in self.dependencies(name):
            arguments += ["--with", os.path.join(self.folder, other, "module.ko")]
        if "cpucaps" in meta:
            arguments += ["--cpu-caps", meta["cpucaps"]]
        state = self.facts.get("kernel_state", {}).values()
        memory = [{"addr": hex(s["addr"]), "bytes": s["bytes"]} for s in state if isinstance(s, dict)]
        for keys in ("jump_keys", "static_call_keys"):
            memory += [{"addr": at, "bytes": data} for at, data in meta[keys].items()]
        if memory:
            path = os.path.join(self.scratch, "memory.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(memory, file)
            arguments += ["--memory", path]
        return arguments

    def compare(self, kmodld, name, stage):
        """Repeats one load, and looks for differences."""
        meta, result = self.metas[name], Result()
        with tempfile.TemporaryDirectory(dir=self.scratch) as out:
            command = [kmodld, *self.arguments(name, stage, os.path.join(out, "raw"))]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
            layout = os.path.join(out, "raw", "layout.json")
            if ran.returncode not in (0, 1) or not os.path.exists(layout):
                result.error = f"kmodld ended with {ran.returncode}: {ran.stderr.strip()[-500:]}"
                return result
            ours = {s["index"]: s for s in read_json(layout)["sections"] if s.get("addr")}
            for section in meta["sections"]:
                our = ours.get(section["index"])
                same = our and int(our["addr"], 16) == int(section["addr"], 16) and our["size"] == section["size"]
                if not same:
                    result.misplaced.append(section["name"])
            elf = self.elf(name)
            masks = holes(stage, elf, meta, self.facts)
            for region in meta["regions"]:
                want = read(os.path.join(self.folder, name, stage, f"{region['name']}.bin"))
                ours_path = os.path.join(out, "raw", f"{region['name']}.bin")
                have = read(ours_path) if os.path.exists(ours_path) else b""
                self.differences(elf, meta, region, want, have.ljust(len(want), b"\0"), masks, result)
        return result

    def where(self, elf, meta, address):
        """What lies at an address: a member of struct module, or a symbol."""
        for section in meta["sections"]:
            offset = address - int(section["addr"], 16)
            if not 0 <= offset < section["size"]:
                continue
            if section["name"] == THIS_MODULE:
                members = self.facts["structures"]["module"]["members"].items()
                return next((f"struct module: {n}" for n, (at, size) in members if at <= offset < at + size), "padding")
            for symbol in elf.symbols():
                if symbol.shndx == section["index"] and 0 <= offset - symbol.value < symbol.size:
                    return f"{symbol.name}+{offset - symbol.value:#x}"
            return f"{section['name']}+{offset:#x}"
        return "between sections"

    def differences(self, elf, meta, region, want, have, masks, result):
        """Adds the differing bytes of a region to the result, by section."""
        base = int(region["base"], 16)
        result.bytes += len(want)
        if want == have:
            return
        reasons = {}
        for mask in masks:
            for at in range(max(0, mask.start - base), min(len(want), mask.start - base + mask.size)):
                reasons[at] = mask.why
        # Looked up for each byte: some modules have thousands of sections.
        sections = sorted((int(s["addr"], 16) - base, s["size"], s["name"]) for s in meta["sections"] if s["size"])
        starts = [start for start, _, _ in sections]
        for at in different(want, have):
            if at in reasons:
                result.runtime[reasons[at]] += 1
                continue
            start, size, name = sections[max(0, bisect_right(starts, at) - 1)] if sections else (0, 0, "")
            owner = name if start <= at < start + size else f"region {region['name']} outside of all sections"
            result.differing[owner] += 1
            if owner not in result.first:
                where = self.where(elf, meta, base + at)
                result.first[owner] = (base + at, where, want[at : at + 8].hex(), have[at : at + 8].hex())


def different(want, have, block=4096):
    """The places of the bytes of `want` that `have` has otherwise, or not at all."""
    for start in range(0, len(want), block):
        a, b = want[start : start + block], have[start : start + block]
        if a != b:
            yield from (start + i for i, byte in enumerate(a) if i >= len(b) or byte != b[i])


def read(path):
    with open(path, "rb") as file:
        return file.read()


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


@dataclass
class Stage:
    """A set at one stage."""

    exact: int = 0
    total: int = 0
    size: int = 0
    differ: int = 0
    runtime: Counter = field(default_factory=Counter)


def compare_stage(captured, kmodld, stage, only=(), verbose=False):
    """Compares all modules of a set, or only some, at one stage, and prints what is wrong."""
    found = Stage()
    for name in captured.modules():
        if stage not in captured.metas[name]["stages"] or only and name not in only:
            continue
        result = captured.compare(kmodld, name, stage)
        found.total, found.exact, found.size = found.total + 1, found.exact + result.exact, found.size + result.bytes
        found.differ += sum(result.differing.values())
        found.runtime += result.runtime
        if verbose or not result.exact:
            state = "exact" if result.exact else "DIFFERS"
            print(f"  {stage} {name}: {state}, {sum(result.runtime.values())} bytes of run-time state")
        for line in result.lines():
            print(f"    {line}")
        sys.stdout.flush()
    return found


def compare(kmodld, folder, image, stages, only, verbose):
    """Compares a set, or only some of its modules, at all stages; True if nothing differs but run-time state."""
    good = True
    with tempfile.TemporaryDirectory(prefix="oracle") as scratch:
        captured = Set.of(kmodld, folder, image, scratch)
        for stage in stages:
            started = time.monotonic()
            found = compare_stage(captured, kmodld, stage, only, verbose)
            seconds = time.monotonic() - started
            exact, total = found.exact, found.total
            set_name = os.path.basename(os.path.abspath(folder))
            print(f"{set_name}: stage {stage}: {exact}/{total} modules exact, {found.differ} of {found.size} bytes differ ({seconds:.0f} s)")
            for why, count in found.runtime.most_common():
                print(f"    not compared, and different: {count} bytes: {why}")
            good = good and total > 0 and exact == total
    return good
