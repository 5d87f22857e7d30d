"""A dump with modules in it: as much of a kernel's memory as `verify` reads to find and judge them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Dict, List, Tuple

import kmodld

BANNER = b"Linux version 6.12.117+deb12-amd64 (fixture) #1 SMP\n"
"""That of the fixture kernel's SPEC (tests/examples.rs)."""
LINUX_BANNER = 0xFFFFFFFF82100000
MODULES = 0xFFFFFFFF82C00000
BTF = 0xFFFFFFFF82D00000

NAME, STATE, LIST, MEM, SIZE = 0x18, 0, 8, 0x140, 0x500
"""Members of `struct module` of that kernel, and its size."""
REGIONS = ("text", "data", "rodata", "ro_after_init", "init_text", "init_data", "init_rodata")
COMING = 1

Structs = Dict[str, Tuple[int, List[Tuple[str, int, int]]]]


def btf() -> bytes:
    """Type information about what is read: structs of numbers of 8 and 4 bytes, and of characters."""
    strings = bytearray(b"\0")

    def text(name: str) -> int:
        strings.extend(name.encode() + b"\0")
        return len(strings) - len(name) - 1

    types = b""
    for name, size in (("char", 1), ("int", 4), ("long", 8)):
        types += struct.pack("<4I", text(name), 1 << 24, size, size * 8)
    char, int_, long = 1, 2, 3
    # The arrays `name` and `mem`, and structs by number.
    types += struct.pack("<6I", 0, 3 << 24, 0, char, int_, 56)
    types += struct.pack("<6I", 0, 3 << 24, 0, 7, int_, len(REGIONS))
    structs: List[Tuple[str, int, List[Tuple[str, int, int]]]] = [
        ("list_head", 16, [("next", long, 0), ("prev", long, 8)]),
        ("module_memory", 0x48, [("base", long, 0), ("size", int_, 8)]),
        ("module_kobject", 0x60, [("mod", long, 0x40)]),
        (
            "module",
            SIZE,
            [("state", int_, STATE), ("list", 6, LIST), ("name", 4, NAME), ("mkobj", 8, 0x50), ("mem", 5, MEM)],
        ),
    ]
    for name, size, members in structs:
        types += struct.pack("<3I", text(name), 4 << 24 | len(members), size)
        for member, kind, offset in members:
            types += struct.pack("<3I", text(member), kind, offset * 8)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + bytes(strings)


def symtab(kallsyms: Path, path: Path) -> Path:
    """The symbols of the fixture kernel, with those of what a dump has."""
    own = {"linux_banner": LINUX_BANNER, "modules": MODULES, "__start_BTF": BTF, "__stop_BTF": BTF + len(btf())}
    lines = [f"{address:016x} D {name}\n" for name, address in own.items()]
    path.write_text(kallsyms.read_text() + "".join(lines))
    return path


class Dump:
    """Memory, in which modules lie where they are said to."""

    def __init__(self) -> None:
        self.pieces: Dict[int, bytearray] = {LINUX_BANNER: bytearray(BANNER), BTF: bytearray(btf())}
        self.listed: List[int] = []

    def add(self, module: kmodld.Module, listed: bool = True) -> int:
        """A module as it was before its init function ran; gives the address of its `struct module`."""
        for region in module.regions.values():
            self.pieces[region.base] = bytearray(region.memory)
        at = next(s.address for s in module.sections if s.name == ".gnu.linkonce.this_module")
        assert at is not None
        self.write(at + STATE, struct.pack("<I", COMING))
        for number, name in enumerate(REGIONS):
            region = module.regions.get(name)
            base, size = (region.base, region.size) if region else (0, 0)
            self.write(at + MEM + 0x48 * number, struct.pack("<QI", base, size))
        if listed:
            self.listed.append(at)
        return at

    def write(self, address: int, data: bytes) -> None:
        base = max(base for base in self.pieces if base <= address)
        piece = self.pieces[base]
        assert address + len(data) <= base + len(piece)
        piece[address - base : address - base + len(data)] = data

    def save(self, path: Path) -> Path:
        """An ELF core."""
        self.pieces[MODULES] = bytearray(16)
        chain = [MODULES, *(at + LIST for at in reversed(self.listed)), MODULES]
        for this, following in zip(chain, chain[1:]):
            self.write(this, struct.pack("<Q", following))
            self.write(following + 8, struct.pack("<Q", this))
        pieces = sorted(self.pieces.items())
        out = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        out += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(pieces), 0, 0, 0)
        at = 64 + 56 * len(pieces)
        for address, data in pieces:
            out += struct.pack("<IIQQQQQQ", 1, 7, at, address, at, len(data), len(data), 0)
            at += len(data)
        path.write_bytes(out + b"".join(bytes(data) for _, data in pieces))
        return path
