#!/usr/bin/env python3
"""What a real kernel has in memory, against what kmodld makes. README.md tells how."""

import argparse
import os
import signal
import sys
import tarfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import capture
import compare
from kernel_tree import ROOT, KernelTree, fetch
from machine import MACHINES


def command_capture(arguments):
    path = arguments.kernel
    if not os.path.isdir(path):
        path = fetch(path, arguments.cache)
    tree = KernelTree(path)
    names = [tree.add(m) if m.endswith(".ko") else m for m in arguments.module]
    machine = MACHINES[tree.elf(names[0].replace("-", "_")).machine]
    options = capture.Options(
        cpu=arguments.cpu or machine.cpu,
        smp=arguments.smp,
        memory=arguments.memory,
        append=arguments.append,
        limit=arguments.limit,
        params=dict(p.split(":", 1) for p in arguments.params),
    )
    return 0 if capture.capture(tree, names, os.path.abspath(arguments.out), options) else 1


def command_compare(arguments):
    image = arguments.kernel
    good = True
    for folder in arguments.set:
        facts = compare.read_json(os.path.join(folder, "set.json"))
        if not arguments.kernel:
            image = KernelTree(os.path.join(arguments.cache, facts["kernel"])).image
        elif os.path.isdir(image):
            image = KernelTree(image).image
        stages = arguments.stage or compare.stages_of(arguments.kmodld)
        good = compare.compare(arguments.kmodld, folder, image, stages, arguments.module, arguments.verbose) and good
    return 0 if good else 1


def command_pack(arguments):
    for folder in arguments.set:
        folder = os.path.abspath(folder)
        name = os.path.basename(folder)
        with tarfile.open(f"{folder}.tar.xz", "w:xz", preset=9) as pack:
            pack.add(folder, name, filter=lambda f: None if f.name == f"{name}/console" else f)
    return 0


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the guest is ended
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sub = commands.add_parser("capture", help="boot a kernel, load modules, write what is in memory")
    sub.set_defaults(run=command_capture)
    sub.add_argument("--kernel", required=True, help="a tree of fetch-kernels.sh, or SERIES-FLAVOUR to fetch")
    cache = os.environ.get("KMODLD_KERNELS", os.path.join(ROOT, "target", "kernels"))
    sub.add_argument("--cache", default=cache, help="where fetched kernels are kept (default: KMODLD_KERNELS)")
    sub.add_argument("--out", required=True, help="folder of the set; replaced if it exists")
    sub.add_argument("--cpu", default="", help="QEMU's CPU model (default: max, cortex-a72)")
    sub.add_argument("--smp", type=int, default=1, help="number of CPUs (default: 1)")
    sub.add_argument("--memory", type=int, default=1024, help="MiB of the guest (default: 1024)")
    sub.add_argument("--append", default="nokaslr", help="kernel command line (default: nokaslr)")
    sub.add_argument("--limit", type=int, default=900, help="seconds until the guest is ended (default: 900)")
    sub.add_argument("--params", action="append", default=[], metavar="MODULE:A=1 B=2", help="of a module; repeatable")
    sub.add_argument("module", nargs="+", help="name of a module of the package, or a .ko file")

    sub = commands.add_parser("compare", help="compare sets with what kmodld makes")
    sub.set_defaults(run=command_compare)
    kmodld = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "kmodld")
    sub.add_argument("--kmodld", default=kmodld, help="the program (default: target/release/kmodld)")
    sub.add_argument("--kernel", default="", help="tree, image or SPEC (default: the one in the cache)")
    sub.add_argument("--cache", default=cache, help="folder of the trees (default: KMODLD_KERNELS)")
    sub.add_argument("--stage", action="append", default=[], help="repeatable (default: all that kmodld has)")
    sub.add_argument("--module", action="append", default=[], help="only this one; repeatable (default: all)")
    sub.add_argument("--verbose", action="store_true", help="name every module")
    sub.add_argument("set", nargs="+", help="folder that capture has made")

    sub = commands.add_parser("pack", help="make SET.tar.xz of the folder SET")
    sub.set_defaults(run=command_pack)
    sub.add_argument("set", nargs="+")

    arguments = parser.parse_args()
    sys.exit(arguments.run(arguments))


if __name__ == "__main__":
    main()
