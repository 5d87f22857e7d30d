#!/usr/bin/env python3
"""Hunts in a dump, or in the running kernel's memory, for what the modules' files and the kernel do not explain.

    hunt_kmodld.py KERNEL [DUMP] [MODULE.ko]...

KERNEL is an image or a tree, DUMP any that `kmodld verify` reads (/proc/kcore without one), MODULE.ko files that the tree does not
have. A line for each alarm: its kind, its place, what should be there and what is. Exit status: 0 clean, 1 alarms, 4 not all was
judged. Needs the Python package kmodld.
"""

import sys

import kmodld


def hunt(kernel, dump, files):
    """Prints what is found; gives the report. `kernel` is a kmodld.Kernel."""
    report = kernel.verify(dump, files=files)
    for alarm in report.alarms:
        place = f"{alarm.address:#x} {alarm.symbol or '-'} [{alarm.module or '-'}]"
        print(f"{alarm.kind} {alarm.size} {place}: {alarm.expected.hex() or '-'} -> {alarm.found.hex() or '-'}: {alarm.message}")
    for module in report.modules:
        if module.verdict not in ("clean", "changed") or module.unjudged:
            print(f"{module.name}: {module.verdict}: {'; '.join(module.unjudged) or 'no file'}", file=sys.stderr)
    return report


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    kernel, *rest = sys.argv[1:]
    report = hunt(kmodld.Kernel(kernel), rest[0] if rest else "/proc/kcore", rest[1:])
    sys.exit(1 if report.alarms else 0 if report.is_decided else 4)
