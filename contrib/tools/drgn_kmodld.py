"""drgn 0.0.31 or later: modules of a program at their places, linked by kmodld, so that addresses in them have names.

In a session of drgn: `import drgn_kmodld; drgn_kmodld.add(prog, "/path/of/tree")` for all modules of a kernel, or
`drgn_kmodld.add_module(prog, "/path/of/tree", "ext4", address)` for one, by its name or file.
"""

import json
import os
import subprocess
import tempfile

from drgn.helpers.linux.list import list_for_each_entry

PROGRAM = os.environ.get("KMODLD", "kmodld")


def add_module(prog, kernel, module, address, folder=None):
    """Links a module with its first region at an address, and gives the file to drgn as an extra module."""
    name = os.path.basename(module).split(".")[0].replace("-", "_")
    elf = os.path.join(folder or tempfile.mkdtemp(prefix="kmodld-"), name + ".elf")
    words = [PROGRAM, "-q", "link", module, "--kernel", kernel, "--base", hex(address), "--json", "-o", elf]
    layout = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    extra = prog.extra_module(name, address, create=True)
    regions = [(int(region["base"], 16), region["size"]) for region in layout["regions"]]
    # Without them drgn finds a symbol by its name only.
    extra.address_ranges = [(base, base + size) for base, size in regions if size]
    extra.try_file(elf, force=True)
    return extra


def base(module):
    """Address of the first region: MOD_TEXT since 6.4, core_layout before."""
    try:
        return module.mem[0].base.value_()
    except AttributeError:
        return module.core_layout.base.value_()


def add(prog, kernel):
    """Adds every module of the program's list; the names of those that could not be linked."""
    folder, failed = tempfile.mkdtemp(prefix="kmodld-"), []
    for module in list_for_each_entry("struct module", prog["modules"].address_of_(), "list"):
        name = module.name.string_().decode()
        try:
            add_module(prog, kernel, name, base(module), folder)
        except subprocess.CalledProcessError:
            failed.append(name)
    return failed
