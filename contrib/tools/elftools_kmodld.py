"""pyelftools: `elftools_kmodld.py MODULE.elf` prints what made the file, and what the module takes from where."""

import sys

from elftools.elf.elffile import ELFFile


def note(elf):
    """The lines of the note, by name."""
    for note in elf.get_section_by_name(".note.kmodld").iter_notes():
        if note["n_name"] == "kmodld":
            text = note["n_desc"]
            text = text.encode("latin-1").decode() if isinstance(text, str) else text.decode()
            return dict(line.split(": ", 1) for line in text.splitlines())
    return {}


def imports(elf):
    """Name, address, owner and type of each import."""
    sections = list(elf.iter_sections())
    for symbol in elf.get_section_by_name(".symtab").iter_symbols():
        index = symbol["st_shndx"]
        name = sections[index].name if isinstance(index, int) and index < len(sections) else ""
        if name.startswith(".import."):
            owner = name[len(".import.") :].rsplit(".", 1)[0]
            yield symbol.name, symbol["st_value"], owner, symbol["st_info"]["type"]


def main():
    with open(sys.argv[1], "rb") as file:
        elf = ELFFile(file)
        for name, value in note(elf).items():
            print(f"{name}: {value}")
        for name, address, owner, kind in imports(elf):
            print(f"{address:#x} {kind} {name} of {owner}")


if __name__ == "__main__":
    main()
