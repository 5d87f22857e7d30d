"""Volatility 3: `isf_kmodld.py OUT.json MODULE.elf...` writes the symbols of modules as one ISF file.

Names are MODULE!NAME, addresses are those of the files. Types are none of a module's: those of the kernel's own ISF file serve.
"""

import json
import sys

from elftools.elf.elffile import ELFFile

from elftools_kmodld import note


def symbols(elf):
    """Functions and objects of the module itself."""
    own = {n for n, s in enumerate(elf.iter_sections()) if s["sh_flags"] & 2 and s["sh_type"] != "SHT_NOBITS"}
    for symbol in elf.get_section_by_name(".symtab").iter_symbols():
        if symbol["st_shndx"] in own and symbol["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT") and symbol.name:
            yield symbol.name, symbol["st_value"]


def isf(paths):
    """The document."""
    found, kernels = {}, set()
    for path in paths:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            of = note(elf)
            kernels.add(of["kernel"])
            for name, address in symbols(elf):
                found.setdefault(f"{of['module']}!{name}", {"address": address})
    if len(kernels) != 1:
        raise SystemExit(f"modules of several kernels: {', '.join(sorted(kernels))}")
    return {
        "metadata": {
            "format": "6.2.0",
            "producer": {"name": "kmodld", "version": "0.2.0"},
            "linux": {"symbols": [{"kind": "symtab", "name": "modules"}], "types": []},
        },
        "base_types": {
            "pointer": {"kind": "int", "size": 8, "signed": False, "endian": "little"},
        },
        "user_types": {},
        "enums": {},
        "symbols": found,
    }


def main():
    out, *paths = sys.argv[1:]
    document = isf(paths)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
    print(f"{len(document['symbols'])} symbols")


if __name__ == "__main__":
    main()
