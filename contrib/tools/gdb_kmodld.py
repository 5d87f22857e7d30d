"""gdb: `kmodld-modules KERNEL PROC_MODULES [KALLSYMS]` loads the symbols of all modules of a guest at their places.

KERNEL is a tree with the guest's modules, as `kmodld link --kernel` takes it; PROC_MODULES and KALLSYMS the texts of the guest's
/proc/modules and /proc/kallsyms, read as root. Without KALLSYMS the kernel has to be booted with nokaslr, and what modules take from
each other is named where it would lie without other modules. `kmodld-module KERNEL MODULE ADDRESS [KALLSYMS]` does so for one module by
its name or file.
"""

import os
import subprocess
import tempfile

import gdb

PROGRAM = os.environ.get("KMODLD", "kmodld")


def load(kernel, module, address, kallsyms=None):
    """Links a module at an address, and has gdb read its symbols."""
    folder = tempfile.mkdtemp(prefix="kmodld-")
    elf = os.path.join(folder, os.path.basename(module) + ".elf")
    words = [PROGRAM, "-q", "link", module, "--kernel", kernel, "--base", hex(address), "-o", elf]
    if kallsyms:
        # It has the modules that are loaded, so none has to be loaded first.
        words += ["--symtab", kallsyms, "--no-deps"]
    linked = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if linked.returncode != 0 or not os.path.exists(elf):
        raise gdb.GdbError(f"{module}: {linked.stderr.strip() or 'not linked'}")
    # All addresses in the file are final, so none is given.
    gdb.execute(f"add-symbol-file {elf}", to_string=True)


class Module(gdb.Command):
    """kmodld-module KERNEL MODULE ADDRESS [KALLSYMS]: the symbols of one module at its place."""

    def __init__(self):
        super().__init__("kmodld-module", gdb.COMMAND_FILES, gdb.COMPLETE_FILENAME)

    def invoke(self, argument, from_tty):
        kernel, module, address, *kallsyms = gdb.string_to_argv(argument)
        load(kernel, module, int(address, 0), *kallsyms)


class Modules(gdb.Command):
    """kmodld-modules KERNEL PROC_MODULES [KALLSYMS]: the symbols of all modules of a guest at their places."""

    def __init__(self):
        super().__init__("kmodld-modules", gdb.COMMAND_FILES, gdb.COMPLETE_FILENAME)

    def invoke(self, argument, from_tty):
        kernel, listing, *kallsyms = gdb.string_to_argv(argument)
        done, failed = 0, []
        with open(listing, encoding="ascii") as lines:
            for line in lines:
                # name size references users state address
                words = line.split()
                address = int(words[5], 16)
                if address == 0:
                    raise gdb.GdbError("the addresses in this /proc/modules are hidden: read it as root")
                try:
                    load(kernel, words[0], address, *kallsyms)
                    done += 1
                except gdb.GdbError as error:
                    failed.append(str(error))
        print(f"symbols of {done} modules")
        for why in failed:
            print(why)


Module()
Modules()
