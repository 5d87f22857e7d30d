#!/usr/bin/env python3
"""What modules do on a booted kernel, to compare `kmodld run` with.

    tests/oracle/lkm.py record --kernel KERNELS/6.12.117+deb12-amd64 --modules fixtures/lkm/6.12-amd64 --out tests/lkm/6.12-amd64.json
    tests/oracle/lkm.py compare --kernel KERNELS/6.12.117+deb12-amd64 --modules fixtures/lkm/6.12-amd64 --kmodld target/debug/kmodld

For each NAME.actions in tests/lkm: the guest goes back to the snapshot behind its boot, loads NAME.ko, does what the actions say, and
removes the module. Results (negative ones are errors), bytes that were read, and the kernel's log are written down, or compared with
what `kmodld run` makes of the same. Exit status 0 says that all is equal. tests/lkm/machine-values names what is not compared.
"""

import argparse
import functools
import glob
import json
import os
import re
import shlex
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import GuestError  # noqa: E402
from judge import Judge  # noqa: E402
from kernel_tree import ROOT, KernelTree  # noqa: E402
from elf import Elf  # noqa: E402
from machine import MACHINES  # noqa: E402
from verdicts import APPEND  # noqa: E402

ACTIONS = os.path.join(ROOT, "tests", "lkm")
PREFIX = re.compile(r"^<(\d+)>\[ *\d+\.\d+\] ?")
# What a kernel says at any time, of itself.
CHATTER = re.compile(r"^(clocksource|TSC|tsc|sched_clock|random|hrtimer|workqueue|perf|rcu)\b|^acted$")
# The numbers that scripts name are free on a PC; drivers of other boards would have them first.
FREED = {183: "initcall_blacklist=tegra_uart_init,mmc_blk_init"}
# Seconds that QEMU may compute for a plan, and that may pass.
WORK, WAIT = 60, 180
O_WRONLY, O_RDWR, O_NONBLOCK = 1, 2, 0o4000
AT_FDCWD = (1 << 64) - 100
POLL = {1: "POLLIN", 2: "POLLPRI", 4: "POLLOUT", 8: "POLLERR", 16: "POLLHUP", 32: "POLLNVAL", 64: "POLLRDNORM", 256: "POLLWRNORM"}
ESCAPE = re.compile(rb"\\(n|t|0|\\|x[0-9a-fA-F]{2})")


def unescaped(text):
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    plain = {b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
    return ESCAPE.sub(lambda m: plain.get(m[1]) or bytes.fromhex(m[1][1:].decode()), text.encode())


class Numbers:
    """System calls by their names."""

    def __init__(self, machine):
        self.compiler = next(c for c in machine.compilers if subprocess.run(["which", c], capture_output=True).returncode == 0)

    @functools.cache
    def __getitem__(self, name):
        source = f"#include <asm/unistd.h>\nnumber __NR_{name}\n"
        out = subprocess.run([self.compiler, "-E", "-P", "-x", "c", "-"], input=source, capture_output=True, text=True, check=True).stdout
        return int(out.split("number")[-1])


class Plans:
    """Actions as lines of actions.h."""

    def __init__(self, numbers):
        self.numbers = numbers

    def call(self, name, *words):
        return " ".join(["s", f"#{self.numbers[name]:x}", *words])

    def insmod(self, file, parameters):
        return f"l {text('/' + os.path.basename(file))} {text(parameters)}"

    def line(self, action):
        command, _, rest = action.strip().partition(" ")
        words = rest.split()
        if command == "open":
            mode = {"r": 0, "w": O_WRONLY, "rw": O_RDWR}
            flags = next((mode[w] for w in words[1:] if w in mode), O_RDWR) | (O_NONBLOCK if "nonblock" in words else 0)
            return self.call("openat", number(AT_FDCWD), text(words[0]), number(flags), "#0")
        if command == "close":
            return self.call("close", number(int(words[0])))
        if command == "read":
            return self.on(words[0], 0, "read", f"@{int(words[1], 0) if len(words) > 1 else 4096:x}", self.count(words))
        if command == "write":
            return self.write(words[0], unescaped(rest[len(words[0]) :].lstrip()))
        if command == "echo":
            value, _, path = rest.rpartition(">")
            return self.write(path.strip(), unescaped(value.rstrip()) + b"\n")
        if command == "ioctl":
            return self.on(words[0], O_RDWR, "ioctl", number(int(words[1], 0)), self.argument(rest.split(None, 2)[2:]))
        if command == "mknod":
            path, _, major, minor = words
            if not re.fullmatch(r"0x[0-9a-f]+|\d+", major):
                return f"m {text(path)} {text(major)} {number(int(minor, 0))}"
            major, minor = int(major, 0), int(minor, 0)
            device = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
            return self.call("mknodat", number(AT_FDCWD), text(path), number(0o20666), number(device))
        if command == "cat":
            return f"c {text(words[0])}"
        if command == "sleep":
            seconds = float(words[0])
            pause = int(seconds).to_bytes(8, "little") + int(seconds % 1 * 1e9).to_bytes(8, "little")
            return self.call("nanosleep", f"${pause.hex()}", "#0")
        if command == "poll":
            asked = int(words[0]).to_bytes(4, "little") + (0x17F).to_bytes(2, "little") + bytes(2)
            pause = int(words[1]) if len(words) > 1 else 0
            pause = (pause // 1000).to_bytes(8, "little") + (pause % 1000 * 1_000_000).to_bytes(8, "little")
            return self.call("ppoll", f"&{asked.hex()}", "#1", f"${pause.hex()}", "#0", "#8")
        if command == "call":
            return self.call(words[0], *(number(int(word, 0)) for word in words[1:]))
        if command == "insmod":
            return self.insmod(words[0], " ".join(words[1:]))
        if command == "rmmod":
            return self.call("delete_module", text(words[0]), number(O_NONBLOCK))
        raise SystemExit(f"unknown action {action}")

    @staticmethod
    def count(words):
        return number(int(words[1], 0) if len(words) > 1 else 4096)

    @staticmethod
    def argument(words):
        if not words:
            return "#0"
        if words[0].startswith("int:"):
            return f"&{int(words[0][4:]).to_bytes(4, 'little', signed=True).hex()}"
        if words[0].startswith("bytes:"):
            return f"&{unescaped(words[0][6:]).hex()}"
        return number(int(words[0], 0))

    def write(self, target, data):
        return self.on(target, O_WRONLY, "write", f"${data.hex()}", number(len(data)))

    def on(self, target, flags, name, *words):
        if re.fullmatch(r"-?\d+", target):
            return self.call(name, number(int(target)), *words)
        return f"p {text(target)} {number(flags)} {self.call(name, '%', *words)}"


def number(value):
    return f"#{value & (1 << 64) - 1:x}"


def text(value):
    return f"${value.encode().hex()}"


def script(path):
    """Parameters and actions."""
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    parameters = next((line.partition(":")[2].strip() for line in lines if line.startswith("# parameters:")), "")
    return parameters, [line for line in lines if line and not line.startswith("#")]


def shown(action, data):
    """The bytes of an answer as `kmodld run` shows them."""
    if action.startswith("poll "):
        revents = int.from_bytes(data[6:8], "little")
        return " ".join(name for bit, name in POLL.items() if revents & bit)
    # Bytes that are no text are \xHH.
    return data.decode("utf-8", "backslashreplace")


def stable(line):
    for value in machine_values():
        line = re.sub(re.escape(value) + r"\d+", f"{value}N", line)
    return line


@functools.cache
def machine_values():
    with open(os.path.join(ACTIONS, "machine-values"), encoding="utf-8") as file:
        return [line.split("\t")[0] for line in file if line.strip() and not line.startswith("#")]


def without_registers(log):
    """Of the report of a warning: what happened and where, without registers, stack and hardware, which are the machine's."""
    kept, inside = [], False
    for line in log:
        inside = line[3:].startswith("WARNING: ") or inside and "---[ end trace" not in line
        if not inside or line[3:].startswith(("WARNING: ", "Modules linked in: ")):
            kept.append(line)
    return kept


class Actor(Judge):
    """A booted kernel that does what plans say, each from the snapshot behind its boot."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.command = "act"

    def stops(self):
        return self.crashes

    def act(self, name):
        if self.guest is None:
            self.boot()
        self.guest.restore("boot")
        self.guest.write(self.symbols["order"], (1).to_bytes(8, "little") + f"/{name}.plan".encode() + b"\0")
        self.guest.step_over(self.hook)
        registers = self.guest.resume_within(WORK, WAIT)
        if registers is None or registers["pc"] != self.hook:
            raise GuestError(f"{name}: the guest {'hangs' if registers is None else 'crashed'}\n{self.console(0)[-1500:]}")
        address, size = (registers[r] for r in self.machine.arguments[:2])
        return self.guest.memory(address, size).decode("latin1")


def recorded(name, actions, said):
    """What the guest wrote down, as it is kept."""
    results, _, log = said.partition("d\n")
    rows = []
    for line in results.splitlines():
        kind, _, value = line.partition(" ")
        if kind == "r":
            if not value.lstrip("-").isdigit():
                raise SystemExit(f"{name}: {actions[len(rows)]}: {value}, after {rows}\n{log}")
            rows.append({"action": actions[len(rows)], "result": int(value)})
        else:
            rows[-1]["output"] = shown(actions[len(rows) - 1], bytes.fromhex(value))
    dmesg = []
    for line in log.encode("latin1").decode("utf-8", "replace").splitlines():
        level = PREFIX.match(line)
        line = PREFIX.sub("", line)
        if level and not CHATTER.match(line):
            dmesg.append(f"<{int(level[1]) & 7}>{line}")
    dmesg = without_registers(dmesg)
    if len(rows) != len(actions):
        raise SystemExit(f"{name}: {len(rows)} results of {len(actions)} actions")
    return {"results": rows, "dmesg": dmesg}


def record(arguments):
    tree = KernelTree(arguments.kernel)
    with open(next(glob.iglob(f"{arguments.modules}/*.ko")), "rb") as file:
        machine = MACHINES[Elf(file.read()).machine]
    plans = Plans(Numbers(machine))
    actor = Actor(tree, machine, f"{APPEND} {FREED.get(machine.elf_machine, '')}".strip(), 512)
    scripts = {os.path.basename(path)[: -len(".actions")]: script(path) for path in sorted(glob.glob(f"{ACTIONS}/*.actions"))}
    all_actions = {}
    for name, (parameters, actions) in scripts.items():
        first = " ".join(filter(None, [f"insmod {name}.ko", parameters]))
        all_actions[name] = [first, *actions, f"rmmod {name}"]
        plan = "\n".join(plans.line(action) for action in all_actions[name]) + "\n"
        actor.files[f"{name}.plan"] = plan.encode()
        with open(f"{arguments.modules}/{name}.ko", "rb") as file:
            actor.files[f"{name}.ko"] = file.read()
    modules, failed = {}, False
    try:
        for name in arguments.names or scripts:
            try:
                modules[name] = recorded(name, all_actions[name], actor.act(name))
            except GuestError as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed = True
                actor.close()
    finally:
        actor.close()
    if arguments.names and os.path.exists(arguments.out):
        with open(arguments.out, encoding="utf-8") as file:
            modules = {**json.load(file)["modules"], **modules}
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump({"release": tree.release, "modules": dict(sorted(modules.items()))}, file, indent=1, ensure_ascii=False)
        file.write("\n")
    return failed


def run(arguments, name, parameters, actions):
    """The same by kmodld, in the same form."""
    command = [arguments.kmodld, "run", f"{name}.ko", *shlex.split(parameters), "--kernel", os.path.abspath(arguments.kernel), "--json"]
    for action in actions:
        command += ["-e", action]
    out = subprocess.run(command, cwd=arguments.modules, capture_output=True, text=True)
    if not out.stdout:
        return None, out.stderr
    document = json.loads(out.stdout)
    return document, out.stderr


def compared(recording, document):
    """What differs, a line each."""
    different = []
    entries = [document["init"], *document["actions"]]
    if document["exit"]:
        entries.append(document["exit"])
    rows = recording["results"]
    if len(entries) == len(rows) - 1 and rows[-1]["result"] == -2:  # gone already
        rows = rows[:-1]
    for row, entry in zip(rows, entries):
        if entry["stopped"]:
            stopped = entry["stopped"]
            different.append(f"{row['action']}: stopped: {stopped['reason']} at {stopped['symbol']} < {' < '.join(stopped['stack'][:6])}")
            continue
        if row["result"] != entry["result"]:
            different.append(f"{row['action']}: {row['result']}, here {entry['result']}")
        if stable(row.get("output") or "") != stable(entry["output"] or ""):
            different.append(f"{row['action']}: {row.get('output')!r}, here {entry['output']!r}")
    if len(rows) != len(entries):
        different.append(f"{len(rows)} results, here {len(entries)}")
    here = [f"<{m['level']}>{line}" for m in document["dmesg"] for line in m["text"].split("\n")]
    theirs, here = [stable(line) for line in recording["dmesg"]], [stable(line) for line in without_registers(here)]
    for number in range(max(len(theirs), len(here))):
        pair = [log[number] if number < len(log) else None for log in (theirs, here)]
        if pair[0] != pair[1]:
            different.append(f"dmesg line {number}: {pair[0]!r}, here {pair[1]!r}")
            break
    # A warning is in the log as well.
    different += [f"event: {event}" for event in document["events"] if not event.startswith("WARNING at ")]
    return different


def compare(arguments):
    with open(arguments.out, encoding="utf-8") as file:
        modules = json.load(file)["modules"]
    equal = 0
    for name in arguments.names or modules:
        parameters, actions = script(f"{ACTIONS}/{name}.actions")
        document, said = run(arguments, name, parameters, actions)
        different = [said] if document is None else compared(modules[name], document)
        equal += not different
        print(f"{name}: {'equal' if not different else 'different'}")
        for line in different:
            print(f"    {line}")
    print(f"{equal} of {len(arguments.names or modules)} are equal")
    return equal != len(arguments.names or modules)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["record", "compare"])
    parser.add_argument("--kernel", required=True, help="a tree of fetch-kernels.sh")
    parser.add_argument("--modules", required=True, help="the folder of the modules")
    parser.add_argument("--out", required=True, help="the recording")
    parser.add_argument("--kmodld", default="target/debug/kmodld")
    parser.add_argument("names", nargs="*", metavar="NAME", help="these modules only")
    arguments = parser.parse_intermixed_args()
    arguments.kmodld = os.path.abspath(arguments.kmodld)
    return int({"record": record, "compare": compare}[arguments.command](arguments))


if __name__ == "__main__":
    sys.exit(main())
