"""drgn 0.0.31 or later: modules of a program at their places, linked by kmodld. Checked for syntax only.

In a session of drgn: `import drgn_kmodld; drgn_kmodld.add(prog, "/path/of/tree")`.
"""

import os
import subprocess
import tempfile

from drgn.helpers.linux.list import list_for_each_entry

PROGRAM = os.environ.get("KMODLD", "kmodld")


def base(module):
    """Address of the first region: MOD_TEXT since 6.4, core_layout before."""
    try:
        return module.mem[0].base.value_()
    except AttributeError:
        return module.core_layout.base.value_()


def add(prog, kernel):
    """Links every module of the program's list at its address, and gives the file to drgn as an extra module."""
    folder = tempfile.mkdtemp(prefix="kmodld-")
    for module in list_for_each_entry("struct module", prog["modules"].address_of_(), "list"):
        name, address = module.name.string_().decode(), base(module)
        elf = os.path.join(folder, name + ".elf")
        words = [PROGRAM, "-q", "link", name, "--kernel", kernel, "--base", hex(address), "-o", elf]
        if subprocess.run(words, stdout=subprocess.DEVNULL).returncode != 0:
            continue
        extra, _ = prog.extra_module(name, address, create=True)
        extra.try_file(elf, force=True)
