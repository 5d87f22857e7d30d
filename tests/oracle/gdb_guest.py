#!/usr/bin/env python3
"""The recipe for gdb of contrib/tools/README.md, on a booted guest.

    tests/oracle/gdb_guest.py --kernel TREE --kmodld K [--gdb GDB] [--busybox FILE]

Boots the kernel of TREE under QEMU with QEMU's gdb server and some modules, of which vfat is mounted again and again. gdb loads the
symbols of all modules at their places, by the guest's /proc/modules and /proc/kallsyms, and stops at a function of fat. Exit status 0 says that it
stopped at the address that the guest's /proc/kallsyms has for it, and that every function of the modules is where the guest has it.
Needs qemu and a gdb for the guest's architecture.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kernel_tree import ROOT, KernelTree  # noqa: E402
from machine import MACHINES  # noqa: E402
from verify_guest import Running, build  # noqa: E402

NAMES = "fat vfat nls_ascii nls_cp437 ext4 loop bridge veth nf_conntrack".split()
STOP = "fat_fill_super"
AT_WORK = r"""
echo "@@ modules"; cat /proc/modules; echo "@@ symbols"; cat /proc/kallsyms; echo "@@ end"; echo "@@ ready"
while :; do umount /mnt/v; mount -o loop -t vfat /tmp/v /mnt/v; done
"""
# What gdb is asked: to stop, and what it knows of every function whose name only one module has.
ASKED = """
source {root}/contrib/tools/gdb_kmodld.py
set pagination off
set confirm off
target remote {socket}
kmodld-modules {tree} {modules} {symbols}
break {stop}
continue
printf "stopped at %#lx\\n", $pc
info symbol $pc
x/3i $pc
python
wrong, right = [], 0
for line in open("{functions}"):
    address, name = line.split()
    try:
        known = int(gdb.parse_and_eval("(unsigned long)&'" + name + "'"))
    except gdb.error as error:
        known = str(error)
    if known == int(address, 16):
        right += 1
    else:
        wrong.append((name, address, known if isinstance(known, str) else hex(known)))
print("functions at their places:", right)
print("elsewhere:", len(wrong), wrong[:10])
end
"""


def functions(listing):
    """Functions of modules whose name nothing else has, and where they are."""
    found = {}
    for line in listing.splitlines():
        address, kind, name, *module = line.split()
        found.setdefault(name, []).append((int(address, 16), kind in "tT" and bool(module)))
    # gdb has a syntax for what is no word.
    return {name: at[0][0] for name, at in found.items() if len(at) == 1 and at[0][1] and re.fullmatch(r"\w+", name)}


def run(options, folder):
    kernel = KernelTree(options.kernel)
    machine = MACHINES[kernel.elf(next(iter(kernel.names()))).machine]
    known = set(kernel.names())
    initrd, order = build(
        options.kernel, folder, options.busybox, changes=AT_WORK, names=[name for name in NAMES if name in known]
    )
    socket = os.path.join(folder, "gdb")
    more = ["-chardev", f"socket,path={socket},server=on,wait=off,id=gdb", "-gdb", "chardev:gdb"]
    append = "" if options.kaslr else "nokaslr"
    guest = Running(machine, options.kernel, initrd, folder, append=append, more=more)
    try:
        guest.wait("@@ ready", options.limit)
        with open(guest.console, encoding="latin1") as file:
            console = file.read().replace("\r", "")
        texts = {}
        for what, end in (("modules", "@@ symbols"), ("symbols", "@@ end")):
            texts[what] = console.partition(f"@@ {what}\n")[2].partition(end)[0]
        places = functions(texts["symbols"])
        texts["functions"] = "".join(f"{at:x} {name}\n" for name, at in places.items())
        files = {what: os.path.join(folder, what) for what in texts}
        for what, text in texts.items():
            with open(files[what], "w", encoding="ascii") as file:
                file.write(text)
        script = os.path.join(folder, "script.gdb")
        with open(script, "w", encoding="ascii") as file:
            file.write(ASKED.format(root=ROOT, socket=socket, tree=options.kernel, stop=STOP, **files))
        gdb = subprocess.run(
            [options.gdb, "-nx", "-batch", "-x", script],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, check=False,
            timeout=options.limit, env={**os.environ, "KMODLD": os.path.abspath(options.kmodld)},
        )  # fmt: skip
    finally:
        guest.close()
    print(gdb.stdout)
    stopped = re.search(r"^stopped at (0x[0-9a-f]+)$", gdb.stdout, re.M)
    loaded = re.search(r"^symbols of (\d+) modules$", gdb.stdout, re.M)
    right = re.search(r"^functions at their places: (\d+)$", gdb.stdout, re.M)
    print(f"{len(order)} modules; {STOP} is at {places[STOP]:#x} in the guest")
    return (
        stopped is not None
        and int(stopped[1], 16) == places[STOP]
        and int(loaded[1]) == len(order)
        and int(right[1]) == len(places) > 1000
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--kmodld", default=os.path.join(ROOT, "target", "release", "kmodld"))
    parser.add_argument("--gdb", default="gdb")
    parser.add_argument("--busybox", default="/usr/bin/busybox")
    parser.add_argument("--kaslr", action="store_true", help="the guest's addresses are random")
    parser.add_argument("--limit", type=int, default=900)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = run(options, folder)
    print("good" if good else "NOT GOOD")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
