"""What the oracle needs to know of ELF files: section headers, symbols, modinfo."""

import struct
from dataclasses import dataclass

SHT_SYMTAB = 2
SHF_ALLOC = 2
SHDR = struct.Struct("<IIQQQQIIQQ")
SYM = struct.Struct("<IBBHQQ")


@dataclass(frozen=True)
class Section:
    """A section header as it stands in a file or in memory."""

    index: int
    name: str
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    entsize: int


@dataclass(frozen=True)
class Symbol:
    name: str
    shndx: int
    value: int
    size: int


class Elf:
    """A 64-bit little-endian ELF file."""

    def __init__(self, data):
        if data[:6] != b"\x7fELF\2\1":
            raise ValueError("not a 64-bit little-endian ELF file")
        self.data, self._symbols = data, None
        (self.machine,) = struct.unpack_from("<H", data, 18)
        (self._shoff,) = struct.unpack_from("<Q", data, 40)
        self.shnum, self._shstrndx = struct.unpack_from("<HH", data, 60)
        self.sections = self.with_headers(data[self._shoff :][: self.shnum * SHDR.size])

    def with_headers(self, table):
        """The sections as another table of headers has them: the kernel's, after it has placed them."""
        own = self.data[self._shoff :]
        names = SHDR.unpack_from(own, self._shstrndx * SHDR.size)[4]
        sections = []
        for index in range(self.shnum):
            name = self._string(names + SHDR.unpack_from(own, index * SHDR.size)[0])
            _, type_, flags, addr, offset, size, _, _, _, entsize = SHDR.unpack_from(table, index * SHDR.size)
            sections.append(Section(index, name, type_, flags, addr, offset, size, entsize))
        return sections

    def _string(self, at):
        return self.data[at : self.data.index(b"\0", at)].decode("latin1")

    def section(self, name):
        """The first section of a name, or None."""
        return next((s for s in self.sections if s.name == name), None)

    def bytes_of(self, section):
        return self.data[section.offset : section.offset + section.size]

    def symbols(self):
        """All symbols, the null symbol included: the position in the list is the symbol's number."""
        if self._symbols is None:
            self._symbols = self._read_symbols()
        return self._symbols

    def _read_symbols(self):
        table = next((s for s in self.sections if s.type == SHT_SYMTAB), None)
        if table is None:
            return []
        (strings,) = struct.unpack_from("<I", self.data, self._shoff + table.index * SHDR.size + 40)
        strings = self.sections[strings].offset
        symbols = []
        for name, _, _, shndx, value, size in SYM.iter_unpack(self.bytes_of(table)):
            symbols.append(Symbol(self._string(strings + name), shndx, value, size))
        return symbols

    def modinfo(self, tag):
        """The values of a tag of .modinfo."""
        section = self.section(".modinfo")
        texts = self.bytes_of(section).split(b"\0") if section else []
        start = tag.encode() + b"="
        return [t[len(start) :].decode("latin1") for t in texts if t.startswith(start)]
