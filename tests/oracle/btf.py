"""Layouts of the kernel's structures, out of its own BTF (Documentation/bpf/btf.rst)."""

import struct
from dataclasses import dataclass

KINDS = range(1, 20)
INT, PTR, ARRAY, STRUCT, UNION, ENUM = 1, 2, 3, 4, 5, 6
TYPEDEF, VOLATILE, CONST, RESTRICT = 8, 9, 10, 11
# Bytes that follow the 12 of every type: a fixed number, or so many for each member.
TAIL = {1: 4, 3: 12, 14: 4, 17: 4}
TAIL_OF_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


@dataclass(frozen=True)
class Member:
    """Where a member lies in its structure."""

    offset: int
    size: int
    type: int


class Btf:
    def __init__(self, data):
        magic, _, _, header, type_off, type_len, str_off, _ = struct.unpack_from("<HBBIIIII", data)
        if magic != 0xEB9F:
            raise ValueError("not BTF")
        self._data = data
        self._strings = header + str_off
        self._types = [0]
        self._structs = {}
        at = header + type_off
        end = at + type_len
        while at < end:
            name, info, _ = struct.unpack_from("<III", data, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            if kind not in KINDS:
                raise ValueError(f"BTF: unknown kind {kind}")
            if kind == STRUCT and name:
                self._structs.setdefault(self._string(name), len(self._types))
            self._types.append(at)
            at += 12 + TAIL.get(kind, 0) + TAIL_OF_MEMBER.get(kind, 0) * count

    def _string(self, at):
        at += self._strings
        return self._data[at : self._data.index(b"\0", at)].decode()

    def _type(self, number):
        """Kind, number of members, flag of bit fields, size or type, place of what follows."""
        at = self._types[number]
        _, info, size = struct.unpack_from("<III", self._data, at)
        return info >> 24 & 0x1F, info & 0xFFFF, info >> 31, size, at + 12

    def size(self, number):
        """Bytes of a type; 0 for what has none."""
        kind, _, _, size, tail = self._type(number) if number else (0, 0, 0, 0, 0)
        if kind in (INT, STRUCT, UNION, ENUM, 16, 19):
            return size
        if kind == PTR:
            return 8
        if kind == ARRAY:
            element, _, count = struct.unpack_from("<III", self._data, tail)
            return self.size(element) * count
        if kind in (TYPEDEF, VOLATILE, CONST, RESTRICT, 18):
            return self.size(size)
        return 0

    def has(self, name):
        return name in self._structs

    def struct_size(self, name):
        return self.size(self._structs[name])

    def struct(self, name):
        """Members of a structure by name; those of unnamed members count as its own."""
        return self.members(self._structs[name])

    def members(self, number, base=0):
        kind, count, bit_fields, size, tail = self._type(number)
        while kind in (TYPEDEF, VOLATILE, CONST, RESTRICT, 18):
            number = size
            kind, count, bit_fields, size, tail = self._type(number)
        members = {}
        for i in range(count if kind in (STRUCT, UNION) else 0):
            name, type_, bits = struct.unpack_from("<III", self._data, tail + 12 * i)
            offset = base + (bits & 0xFFFFFF if bit_fields else bits) // 8
            if name:
                members[self._string(name)] = Member(offset, self.size(type_), type_)
            else:
                members.update(self.members(type_, offset))
        return members
