"""LIEF: `lief_kmodld.py MODULE.elf` prints the segments, and what the module takes from where."""

import sys

import lief


def imports(elf):
    """Name, address and owner of each import."""
    sections = list(elf.sections)
    for symbol in elf.symbols:
        index = symbol.shndx
        if 0 < index < len(sections) and sections[index].name.startswith(".import."):
            owner = sections[index].name[len(".import.") :].rsplit(".", 1)[0]
            yield symbol.name, symbol.value, owner


def main():
    elf = lief.ELF.parse(sys.argv[1])
    for segment in elf.segments:
        print(f"{segment.virtual_address:#x} {segment.virtual_size:#x} {segment.flags}")
    for name, address, owner in imports(elf):
        print(f"{address:#x} {name} of {owner}")


if __name__ == "__main__":
    main()
