"""radare2 or rizin: names of imports as flags. Checked for syntax only. In a session: `#!pipe python3 r2_kmodld.py MODULE.elf`."""

import sys

import r2pipe
from elftools.elf.elffile import ELFFile

from elftools_kmodld import imports


def main():
    session = r2pipe.open()
    with open(sys.argv[1], "rb") as file:
        for name, address, owner, kind in imports(ELFFile(file)):
            session.cmd(f"f sym.{owner}.{name} 1 {address:#x}")
            if kind == "STT_FUNC":
                session.cmd(f"afl. {address:#x}")


if __name__ == "__main__":
    main()
