"""gdb: `kmodld-modules KERNEL PROC_MODULES` loads the symbols of all modules of a guest at their places.

KERNEL is a tree with the guest's modules, as `kmodld link --kernel` takes it; PROC_MODULES the text of the guest's
/proc/modules, read as root. `kmodld-module KERNEL MODULE ADDRESS` does so for one module by its name or file.
"""

import os
import subprocess
import tempfile

import gdb

PROGRAM = os.environ.get("KMODLD", "kmodld")


def load(kernel, module, address):
    """Links a module at an address, and has gdb read its symbols."""
    folder = tempfile.mkdtemp(prefix="kmodld-")
    elf = os.path.join(folder, os.path.basename(module) + ".elf")
    words = [PROGRAM, "-q", "link", module, "--kernel", kernel, "--base", hex(address), "-o", elf]
    linked = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if linked.returncode != 0 or not os.path.exists(elf):
        raise gdb.GdbError(f"{module}: {linked.stderr.strip() or 'not linked'}")
    # All addresses in the file are final, so none is given.
    gdb.execute(f"add-symbol-file {elf}", to_string=True)


class Module(gdb.Command):
    """kmodld-module KERNEL MODULE ADDRESS: the symbols of one module at its place."""

    def __init__(self):
        super().__init__("kmodld-module", gdb.COMMAND_FILES, gdb.COMPLETE_FILENAME)

    def invoke(self, argument, from_tty):
        kernel, module, address = gdb.string_to_argv(argument)
        load(kernel, module, int(address, 0))


class Modules(gdb.Command):
    """kmodld-modules KERNEL PROC_MODULES: the symbols of all modules of a guest at their places."""

    def __init__(self):
        super().__init__("kmodld-modules", gdb.COMMAND_FILES, gdb.COMPLETE_FILENAME)

    def invoke(self, argument, from_tty):
        kernel, listing = gdb.string_to_argv(argument)
        done, failed = 0, []
        with open(listing, encoding="ascii") as lines:
            for line in lines:
                # name size references users state address
                words = line.split()
                address = int(words[5], 16)
                if address == 0:
                    raise gdb.GdbError("the addresses in this /proc/modules are hidden: read it as root")
                try:
                    load(kernel, words[0], address)
                    done += 1
                except gdb.GdbError as error:
                    failed.append(str(error))
        print(f"symbols of {done} modules")
        for why in failed:
            print(why)


Module()
Modules()
