"""crash: its modules linked by kmodld, as commands for it to read.

    crash vmlinux vmcore <<<mod >modules.txt
    python3 crash_kmodld.py /path/of/tree modules.txt FOLDER [MODULE.ko]... >commands
    crash -i commands vmlinux vmcore

`mod` tells where each module lies. The linked files go to FOLDER, and the gdb in crash reads their symbols and debug information, in which
every address is final. MODULE.ko are files of modules that the tree does not have.
"""

import os
import re
import subprocess
import sys

PROGRAM = os.environ.get("KMODLD", "kmodld")
# MODULE NAME BASE SIZE ...; from crash 8.0.4 on the third column is TEXT_BASE.
ROW = re.compile(r"^\s*[0-9a-f]{8,16}\s+(\S+)\s+([0-9a-f]{8,16})\s+\d+\s")


def modules(text):
    """Name and address of each module that crash lists."""
    return [(row[1], int(row[2], 16)) for row in map(ROW.match, text.splitlines()) if row]


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    kernel, listing, folder, *files = sys.argv[1:]
    own = {os.path.basename(path).split(".")[0].replace("-", "_"): path for path in files}
    with open(listing, encoding="ascii") as text:
        found = modules(text.read())
    if not found:
        sys.exit(f"{listing}: no module in it: is this what `mod` of crash prints?")
    os.makedirs(folder, exist_ok=True)
    for name, address in found:
        elf = os.path.join(folder, name + ".elf")
        words = [PROGRAM, "-q", "link", own.get(name, name), "--kernel", kernel, "--base", hex(address), "-o", elf]
        if subprocess.run(words, stdout=subprocess.DEVNULL).returncode == 0:
            # All addresses in the file are final, so none is given.
            print(f"gdb add-symbol-file {elf}")
        else:
            print(f"{name}: not linked", file=sys.stderr)


if __name__ == "__main__":
    main()
