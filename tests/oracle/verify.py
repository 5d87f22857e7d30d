#!/usr/bin/env python3
"""`kmodld verify` against the memory of booted kernels.

    tests/oracle/verify.py healthy --kernel TREE --kmodld K [--smp 4]     0 alarms, many modules loaded and at work, with --headers
                                                                          a live patch among them (CONFIG_LIVEPATCH)
    tests/oracle/verify.py attack  --kernel TREE --kmodld K --headers DIR each attack of fixtures/attack is found
    tests/oracle/verify.py kcore   --kernel TREE --kmodld K [--smp 4]     0 alarms, kmodld in the guest, by /proc/kcore
    tests/oracle/verify.py bytes   --kernel TREE --kmodld K --dump DUMP   200 bytes of a dump changed: each is found

Each boot is looked at through a dump with paging, one without, and raw physical memory. Exit status 0 says that all was as it
should be. Needs qemu, and busybox-static of the guest's architecture (--busybox). Modules are built against the headers
of that kernel in DIR (linux-headers-RELEASE, as its package has it), or were built elsewhere (--built DIR).
"""

import argparse
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kernel_tree import ROOT, KernelTree  # noqa: E402
from machine import MACHINES  # noqa: E402
from verify_guest import ATTACKS, ITSELF, MORE_ATTACKS, OFF, ON, Running, build, with_kmodld  # noqa: E402

MEMORY = 1024
# Loaded, and not mounted.
UNUSED = ("btrfs", "xfs")


def verify(options, dump, extra=()):
    """The document of `verify --json`, and the exit code."""
    command = [options.kmodld, "verify", "--json", "-q", "--kernel", options.kernel, "--memory-image", dump, *extra]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode not in (0, 1, 4):
        raise SystemExit(f"{' '.join(command)}: exit {run.returncode}\n{run.stderr}")
    return json.loads(run.stdout), run.returncode


def machine_of(options):
    kernel = KernelTree(options.kernel)
    return MACHINES[kernel.elf(next(iter(kernel.names()))).machine]


def dumps(options, folder, changes, extra=()):
    """Boots, and writes the guest's memory in each form; gives the files and the console."""
    machine = machine_of(options)
    initrd, order = build(options.kernel, folder, options.busybox, extra, changes)
    guest = Running(machine, options.kernel, initrd, folder, MEMORY, options.smp, options.append, cpu=options.cpu)
    try:
        guest.wait("@@ ready", options.limit)
        guest.monitor.slow()
        files = [os.path.join(folder, name) for name in ("paging", "physical", "raw")]
        guest.dump(files[0], paging=True)
        guest.dump(files[1])
        guest.raw(files[2], MEMORY << 20)
    finally:
        guest.close()
    with open(guest.console, encoding="latin1") as file:
        console = file.read()
    for line in re.findall(r"@@ (?:not loaded|failed).*", console):
        print(line)
    print(f"{len(order)} modules; at work: {', '.join(re.findall(r'@@ (?!not|ready|failed)(.*)', console))}")
    return files, console


def told(document):
    modules = document["modules"]
    total = {key: sum(m[key] for m in modules) for key in ("bytes", "sites", "pointers")}
    verdicts = dict(Counter(m["verdict"] for m in modules))
    changes = dict(Counter(change["what"] for m in modules for change in m["changes"]))
    return f"{verdicts}, {total}, legal changes: {changes}, {len(document['alarms'])} alarms"


def healthy(options, folder):
    good, extra = True, []
    if options.headers or options.built:
        extra = [(os.path.join(build_modules(options, "livepatch", folder), "live_patch.ko"), "")]
    for what, changes in (("on", ON), ("on and off", OFF)):
        files, console = dumps(options, folder, changes, extra)
        if extra and "@@ live patch\n" not in console.replace("\r", ""):
            print("the live patch is not in place")
            good = False
        for file in files:
            document, code = verify(options, file, [f"--with={path}" for path, _ in extra])
            print(f"{what}, {os.path.basename(file)}: {told(document)}, exit {code}")
            tell(document)
            good &= code == 0
    return good


def tell(document):
    for alarm in document["alarms"][:10]:
        print("   ", alarm["kind"], alarm["addr"], alarm["module"], alarm["symbol"], alarm["message"])
    for module in document["modules"]:
        if module["unjudged"]:
            print("   ", module["name"], module["unjudged"][:3])


def kcore(options, folder):
    """The guest verifies itself, while all is at work."""
    kernel = KernelTree(options.kernel)
    more = with_kmodld(kernel, options.kmodld)
    initrd, _ = build(options.kernel, folder, options.busybox, changes=ON + ITSELF, more=more)
    guest = Running(machine_of(options), options.kernel, initrd, folder, 2 * MEMORY, options.smp, options.append, cpu=options.cpu)
    try:
        guest.wait("@@ end of report", options.limit)
    finally:
        guest.close()
    with open(guest.console, encoding="latin1") as file:
        console = file.read()
    code = int(re.search(r"@@ verified (\d+)", console)[1])
    document = json.loads(re.search(r"@@ report(.*)@@ end of report", console, re.DOTALL)[1])
    print(f"{document['found_by']}: {told(document)}, exit {code}")
    tell(document)
    return code == 0


def build_modules(options, name, folder):
    """Builds the modules of a folder of fixtures, if they are not built already."""
    if options.built:
        return options.built
    machine, work = machine_of(options), os.path.join(folder, name)
    shutil.copytree(os.path.join(ROOT, "fixtures", name), work, dirs_exist_ok=True)
    cross = [f"ARCH={machine.kernel_arch}", f"CROSS_COMPILE={machine.compilers[0].removesuffix('gcc')}"]
    command = ["make", "-s", "-C", options.headers, f"M={work}", "modules", "CONFIG_DEBUG_INFO_BTF_MODULES=", *cross]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return work


def attack(options, folder):
    machine = machine_of(options)
    work = build_modules(options, "attack", folder)
    names = ["attack_victim", "attack_write", "attack_hide", "attack_wipe"]
    extra = [(os.path.join(work, f"{name}.ko"), "") for name in names]
    # Where the member is in struct file_operations, by the relocation that fills it in.
    member = member_offset(extra[0][0])
    script = ATTACKS.replace("MORE", MORE_ATTACKS[machine.name]).replace("MEMBER", str(member))
    for word, section in (("STATIC_CALL", ".static_call_sites"), ("ALTERNATIVE", ".altinstructions")):
        if word in script:
            script = script.replace(word, site(KernelTree(options.kernel), section))
    files, console = dumps(options, folder, script, extra)
    made = re.findall(r"attack: (\w+) ([0-9a-f]{16}) (\d+)", console)
    # Those of the script, and the two modules that hide.
    wanted = len(re.findall(r"(?:^|; )a \w", script, re.MULTILINE)) + 2
    good = len(made) == wanted
    if not good:
        print(f"{len(made)} of {wanted} attacks were made: {made}")
    for file in files:
        with_files = [f"--with={path}" for path, _ in extra]
        document, code = verify(options, file, with_files)
        for how, address, size in made:
            start, end = int(address, 16), int(address, 16) + int(size)
            found = [a for a in document["alarms"] if int(a["addr"], 16) < end and int(a["addr"], 16) + a["size"] > start]
            print(f"{os.path.basename(file)}: {how} at {address}: {[(a['kind'], a['symbol']) for a in found] or 'MISSED'}")
            good &= bool(found)
        if options.hunter:
            hunter = os.path.join(ROOT, "contrib", "tools", "hunt_kmodld.py")
            command = [options.hunter, hunter, options.kernel, file, *(path for path, _ in extra)]
            run = subprocess.run(command, capture_output=True, text=True)
            places = [(int(at, 16), int(size)) for size, at in re.findall(r"^[a-z-]+ (\d+) (0x[0-9a-f]+) ", run.stdout, re.M)]
            for how, address, size in made:
                start, end = int(address, 16), int(address, 16) + int(size)
                hit = any(at < end and at + length > start for at, length in places)
                print(f"{os.path.basename(file)}: the hunter in Python, {how} at {address}: {'found' if hit else 'MISSED'}")
                good &= hit
            good &= run.returncode == 1
        covered = lambda a: any(  # noqa: E731
            int(a["addr"], 16) < int(at, 16) + int(size) and int(a["addr"], 16) + a["size"] > int(at, 16) for _, at, size in made
        )
        others = [a for a in document["alarms"] if not covered(a)]
        print(f"{os.path.basename(file)}: exit {code}, {told(document)}; others:", [(a["kind"], a["module"], a["message"]) for a in others])
        good &= code == 1 and all("attack" in (a["module"] or "") or a["kind"] in ("hidden-module", "unexplained-code") for a in others)
    return good


def site(kernel, section):
    """A function and how far in it there is a site of a table, in .text of a module whose code does not run in the guest."""
    for module in UNUSED:
        elf = kernel.elf(module)
        text, symbols = elf.section(".text").index, elf.symbols()
        functions = [s for s in symbols if s.shndx == text and s.size and s.name.startswith(f"{module}_") and "." not in s.name]
        records = elf.bytes_of(elf.section(section))
        # Two relocations for each record: the first member is the site.
        places = list(struct.iter_unpack("<QQq", elf.bytes_of(elf.section(f".rela{section}"))))[::2]
        length = places[1][0] - places[0][0] if len(places) > 1 else 0
        for place, info, addend in places:
            symbol = symbols[info >> 32]
            # In .altinstructions the last members are the lengths of both instructions.
            is_short = section == ".altinstructions" and records[place + length - 2] < 3
            if place % length or symbol.shndx != text or is_short:
                continue
            at = symbol.value + addend
            for function in functions:
                if function.value <= at < function.value + function.size and function.name not in ATTACKS:
                    return f"{function.name} {at - function.value}"
    raise SystemExit(f"no {section} in .text of {', '.join(UNUSED)}")


def member_offset(path):
    """unlocked_ioctl in victim_data_fops."""
    text = subprocess.run(["readelf", "-rW", path], check=True, capture_output=True, text=True).stdout
    section = text.partition("Relocation section '.rela.data'")[2].partition("\n\n")[0]
    symbols = subprocess.run(["readelf", "-sW", path], check=True, capture_output=True, text=True).stdout
    fops = int(next(line.split()[1] for line in symbols.splitlines() if line.endswith(" victim_data_fops")), 16)
    for line in section.splitlines():
        if "victim_ioctl" in line or ".text" in line:
            return int(line.split()[0], 16) - fops
    raise SystemExit("attack_victim.ko: no relocation of unlocked_ioctl")


def byte_changes(options, folder):
    """Changes bytes of text and rodata in a dump with paging, or a raw one of which a dump with paging is there."""
    before, _ = verify(options, options.dump)
    known = len(before["alarms"])
    generator = random.Random(options.seed)
    regions = [
        (int(r["addr"], 16), r["size"])
        for m in before["modules"]
        if m["verdict"] == "clean"
        for r in m["regions"]
        if r["name"] in ("text", "rodata")
    ]
    segments = load_segments(options.dump)
    root = re.search(r"4K pages, 48 bits at physical (0x[0-9a-f]+)", before["found_by"])
    if not segments and not root:
        raise SystemExit("the dump has no virtual addresses, and its page tables are not of the form that is read here")
    changed = os.path.join(folder, "changed")
    shutil.copyfile(options.dump, changed)
    places = set()
    with open(changed, "r+b") as file:
        while len(places) < options.count:
            base, size = generator.choices(regions, [size for _, size in regions])[0]
            address = base + generator.randrange(size)
            if segments:
                at = next((o + address - v for v, o, n in segments if v <= address < v + n), None)
            else:
                at = walked(file, load_segments(options.dump, 3), int(root[1], 16), address)
            if at is None or any(abs(address - other) < 16 for other in places):
                continue
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ generator.randrange(1, 256)]))
            places.add(address)
    document, code = verify(options, changed)
    alarms = [(int(a["addr"], 16), a["size"]) for a in document["alarms"]]
    missed = [hex(p) for p in sorted(places) if not any(a <= p < a + n for a, n in alarms)]
    print(f"{len(places) - len(missed)} of {len(places)} found, {known} alarms before, {len(alarms)} now; missed: {missed}")
    return not missed and code == 1 and known == 0


def walked(file, physical, root, address):
    """The place in an ELF core of a virtual address, by arm64's page tables of 4K pages and 48 bits."""
    table = root
    for shift in (39, 30, 21, 12):
        place = lambda at: next((o + at - p for p, o, n in physical if p <= at < p + n), None)  # noqa: E731
        at = place(table + (address >> shift & 511) * 8)
        if at is None:
            return None
        file.seek(at)
        (entry,) = struct.unpack("<Q", file.read(8))
        if not entry & 1:
            return None
        table = entry & (1 << 48) - (1 << 12)
        if not entry & 2 or shift == 12:
            return place((table & ~((1 << shift) - 1)) + (address & (1 << shift) - 1))
    return None


def load_segments(path, by=2):
    """(address, offset, size) of the segments of an ELF core: by virtual addresses, or physical ones (3)."""
    with open(path, "rb") as file:
        head = file.read(64)
        offset, count = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<H", head, 56)[0]
        if count == 0xFFFF:
            file.seek(struct.unpack_from("<Q", head, 40)[0] + 44)
            (count,) = struct.unpack("<I", file.read(4))
        file.seek(offset)
        table = file.read(56 * count)
    found = []
    for at in range(0, len(table), 56):
        kind, _, offset, virtual, physical, size = struct.unpack_from("<IIQQQQ", table, at)
        if kind == 1 and (by == 3 or virtual >> 63):
            found.append((physical if by == 3 else virtual, offset, size))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["healthy", "kcore", "attack", "bytes"])
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--kmodld", default=os.path.join(ROOT, "target", "release", "kmodld"))
    parser.add_argument("--busybox", default="/usr/bin/busybox")
    parser.add_argument("--headers")
    parser.add_argument("--built", help="a folder with the modules of fixtures/attack or fixtures/livepatch, built elsewhere for that kernel")
    parser.add_argument("--dump")
    parser.add_argument("--hunter", help="a Python with the package kmodld: contrib/tools/hunt_kmodld.py has to find each attack too")
    parser.add_argument("--smp", type=int, default=1)
    parser.add_argument("--cpu")
    parser.add_argument("--append", default="")
    parser.add_argument("--limit", type=int, default=900)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", help="a folder for the dumps, which are kept")
    options = parser.parse_args()
    what = {"healthy": healthy, "kcore": kcore, "attack": attack, "bytes": byte_changes}[options.what]
    if options.work:
        os.makedirs(options.work, exist_ok=True)
        return 0 if what(options, options.work) else 1
    with tempfile.TemporaryDirectory() as folder:
        return 0 if what(options, folder) else 1


if __name__ == "__main__":
    sys.exit(main())
