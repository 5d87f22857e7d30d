"""angr: opens a linked module so that calls into the kernel have names.

As a program: `angr_kmodld.py MODULE.elf FUNCTION` prints what the decompiler makes of a function.
"""

import sys

import angr
from elftools.elf.elffile import ELFFile


class Import(angr.SimProcedure):
    """A function of the kernel: it returns anything. Subclasses in `procedures` do more."""

    def run(self):
        return self.state.solver.Unconstrained(f"ret_{self.display_name}", self.state.arch.bits)


def imports(path):
    """Name and address of every function that the module takes from elsewhere."""
    with open(path, "rb") as file:
        elf = ELFFile(file)
        over = {n for n, s in enumerate(elf.iter_sections()) if s.name.startswith(".import.")}
        for symbol in elf.get_section_by_name(".symtab").iter_symbols():
            if symbol["st_shndx"] in over and symbol["st_info"]["type"] == "STT_FUNC":
                yield symbol.name, symbol["st_value"]


def project(path, procedures=None):
    """An angr project of a linked module, each imported function hooked: with a procedure of that name if there is one."""
    project = angr.Project(path, auto_load_libs=False, main_opts={"backend": "elf"})
    for name, address in imports(path):
        procedure = (procedures or {}).get(name, Import)
        project.hook(address, procedure(display_name=name), replace=True)
        project.kb.labels[address] = name
    return project


def main():
    path, name = sys.argv[1:]
    module = project(path)
    start = module.loader.find_symbol(name).rebased_addr
    module.analyses.CFGFast(function_starts=[start], regions=[(start, start + 0x1000)], normalize=True)
    function = module.kb.functions[start]
    print(module.analyses.Decompiler(function).codegen.text)


if __name__ == "__main__":
    main()
