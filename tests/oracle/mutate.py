"""Changes one thing in a module. The same seed, index and module give the same mutant, and its name tells the change.

Places are chosen evenly before what lies in them, so that a table of two records is reached as often as one of a thousand symbols.
"""

import random
import struct
from dataclasses import dataclass

from module_file import (
    ALLOC,
    EHDR_FIELDS,
    NOBITS,
    NOTE,
    PROGBITS,
    RELA,
    SHDR_FIELDS,
    SHT_RELA,
    SPECIAL_NAMES,
    STRTAB,
    SYM,
    SYM_FIELDS,
    SYMTAB,
    X86_64,
    File,
)

MODINFO_VALUES = [b"", b"GPL", b"Proprietary", b"Y", b"N", b"0", b"1", b"x", b"\xff\xfe", b"a b", b"%s%n", b"A" * 300]
MODINFO_TAGS = [
    b"license=Proprietary",
    b"license=GPL",
    b"license=",
    b"vermagic=x",
    b"intree=Y",
    b"livepatch=Y",
    b"retpoline=Y",
    b"staging=Y",
    b"import_ns=KMODLD_NONE",
    b"import_ns=module:none",
    b"srcversion=0123456789",
    b"version=1",
    b"name=other",
    b"depends=nobody",
    b"parm=x:y",
    b"test=Y",
    b"noequals",
    b"=novalue",
]
EDGES = {
    1: [0, 1, 2, 3, 4, 7, 8, 0x7F, 0x80, 0xFE, 0xFF],
    2: [0, 1, 2, 0x7F, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFF00, 0xFFF1, 0xFFF2, 0xFFFF],
    4: [0, 1, 2, 4, 8, 0xFF, 0x1000, 0xFFFF, 0x10000, 0x100000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF],
    8: [0, 1, 2, 7, 8, 0x40, 0x1000, 0xFFFFF, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63]
    + [(1 << 64) - 4096, (1 << 64) - 16, (1 << 64) - 1],
}
TYPES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16, 17, 18, 0x6FFFFFF5, 0x6FFFFFFF, 0x70000001, 0x80000000, 0xFFFFFFFF]
FLAG_BITS = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 20, 28, 31, 32, 60, 63]
RELOCATION_TYPES = {
    X86_64: [*range(0, 44), 255, 256, 0x7FFFFFFF, 0xFFFFFFFF],
    183: [0, 1, 2, *range(256, 320), 1024, 1025, 1026, 1027, 0x7FFFFFFF, 0xFFFFFFFF],
}


@dataclass(frozen=True)
class Mutant:
    """A changed module. `kind`, `place` and `field` say what was changed, `name` to what."""

    data: bytes
    kind: str
    place: str
    field: str
    name: str


class Mutator:
    """Makes one mutant."""

    def __init__(self, data, rng):
        self.original = File(data)
        self.file = File(data)
        self.rng = rng

    def pick(self, choices):
        return self.rng.choice(list(choices))

    def edge(self, size, near=()):
        """A value at an edge of what `size` bytes hold, or of what is counted there."""
        values = list(EDGES[size])
        for value in near:
            values += [value, value + 1, value - 1]
        return self.pick(values) & ((1 << 8 * size) - 1)

    def anywhere(self):
        """Any place in the file."""
        return self.rng.randrange(len(self.file.data))

    def mutate(self):
        kinds = [
            self.ehdr,
            self.shdr,
            self.shdr,
            self.symbol,
            self.rela,
            self.rela,
            self.modinfo,
            self.strings,
            self.record,
            self.record,
            self.record,
            self.section,
            self.section,
            self.added,
            self.this_module,
            self.cut,
        ]
        while True:
            change = self.pick(kinds)
            made = change()
            if made is None or self.file.data == self.original.data:
                self.file = File(bytes(self.original.data))
                continue
            place, field, value = made
            what = f"{place}.{field}" if field else place
            name = f"{change.__name__} {what}" + (f"={value}" if value != "" else "")
            return Mutant(bytes(self.file.data), change.__name__, place, field, name)

    # Each of these changes one thing, and gives place, field and value; None if the module has no such thing.

    def ehdr(self):
        f = self.file
        field = self.pick(EHDR_FIELDS)
        at, size = EHDR_FIELDS[field]
        near = [f.shnum, f.get(at, size)] + ([len(f.data), f.shoff + 64 * f.shnum] if size == 8 else [])
        if field == "e_machine":
            near += [3, 62, 183, 40]
        value = self.edge(size, near)
        f.put(at, size, value)
        return "ehdr", field, hex(value)

    def shdr(self):
        f = self.file
        index = self.rng.randrange(f.shnum)
        field = self.pick(SHDR_FIELDS)
        at, size = f.field(index, field)
        now = f.get(at, size)
        if field == "sh_name":
            value = self.pick([0, 1, f.headers[f.shstrndx][5], f.headers[f.shstrndx][5] - 1, 0x7FFFFFFF, 0xFFFFFFFF, now + 1])
            value = self.pick([value, self.pick(f.headers)[0]])
        elif field == "sh_type":
            value = self.pick(TYPES)
        elif field == "sh_flags":
            value = now ^ 1 << self.pick(FLAG_BITS)
        elif field in ("sh_link", "sh_info"):
            value = self.edge(4, [f.shnum, now, self.rng.randrange(f.shnum)])
        elif field == "sh_addralign":
            value = self.edge(8, [now, 3, 16, 4096, 8192])
        elif field == "sh_offset":
            value = self.edge(8, [now, len(f.data), len(f.data) - f.headers[index][5], self.pick(f.headers)[4], self.anywhere()])
        else:
            value = self.edge(8, [now, len(f.data), len(f.data) - f.headers[index][4], 2 * now, self.anywhere(), f.shnum])
        f.put(at, size, value)
        return f.names[index] or f"section{index}", field, hex(value)

    def symbol(self):
        f = self.file
        symbols = f.symbols()
        strings = f.headers[f.headers[f.symtab()][6]]
        kinds = {}
        for number, (_, (name, info, _, shndx, value, _)) in enumerate(symbols):
            text = f.string(f.headers[f.symtab()][6], name)
            if number == 0:
                kind = "null"
            elif text in ("__this_module", "init_module", "cleanup_module"):
                kind = text
            elif text.startswith(("__ksymtab", "__kstrtab", "__crc_", "__export", "__UNIQUE_ID", "__param", "__SCK__", "__SCT__")):
                kind = text.lstrip("_").split("_")[0]
            elif shndx == 0:
                kind = "undefined" if info >> 4 == 1 else "weak undefined"
            elif shndx >= 0xFF00:
                kind = "absolute" if shndx == 0xFFF1 else "reserved"
            else:
                kind = {0: "local", 1: "global", 2: "weak"}.get(info >> 4, "other")
                kind += {0: "", 1: " object", 2: " function", 3: " section", 4: " file"}.get(info & 15, "")
            kinds.setdefault(kind, []).append(number)
        kind = self.pick(sorted(kinds))
        number = self.pick(kinds[kind])
        at, (_, info, *_) = symbols[number]
        field = self.pick(SYM_FIELDS)
        offset, size = SYM_FIELDS[field]
        now = f.get(at + offset, size)
        if field == "st_name":
            value = self.edge(4, [strings[5], now, self.pick(symbols)[1][0]])
        elif field == "st_info":
            value = self.pick([info & 15 | self.pick([0, 1, 2, 3, 10, 15]) << 4, info & 0xF0 | self.pick([*range(8), 10, 13, 15])])
        elif field == "st_shndx":
            values = [f.shnum, self.rng.randrange(f.shnum), f.find(".data..percpu") or 1, f.symtab()]
            value = self.pick([self.edge(2, values[:1]), self.pick(values), 0xFFF1, 0xFFF2, 0xFF20, 0])
        else:
            value = self.edge(8, [now])
        f.put(at + offset, size, value)
        return f"symbol({kind})", field, f"{value:#x} of {number}"

    def rela(self):
        f = self.file
        tables = [i for i, h in enumerate(f.headers) if h[1] == SHT_RELA and h[5] >= RELA]
        if not tables:
            return None
        table = self.pick(tables)
        number = self.rng.randrange(f.headers[table][5] // RELA)
        at = f.headers[table][4] + RELA * number
        target = f.headers[f.headers[table][7]]
        field = self.pick(["r_offset", "type", "symbol", "r_addend", "double"])
        if field == "r_offset":
            value = self.edge(8, [f.get(at, 8), target[5], target[5] - 4, target[5] - 8])
            f.put(at, 8, value)
        elif field == "type":
            value = self.pick(RELOCATION_TYPES[f.machine])
            f.put(at + 8, 4, value)
        elif field == "symbol":
            count = f.headers[f.symtab()][5] // SYM
            value = self.edge(4, [count, self.rng.randrange(count)])
            f.put(at + 12, 4, value)
        elif field == "r_addend":
            now = f.get(at + 16, 8)
            near = [now, 1 << 31, (1 << 64) - (1 << 31), 1 << 20, 1 << 27, (1 << 64) - (1 << 27), 1 << 33, 1 << 62]
            value = self.edge(8, [*near, (now + self.pick([4, 8, -4, -8])) & (1 << 64) - 1])
            f.put(at + 16, 8, value)
        else:
            data = f.content(table)
            f.set_content(table, data + data[RELA * number : RELA * (number + 1)])
            return f.names[table], field, str(number)
        return f.names[table], field, f"{value:#x} of {number}"

    def modinfo(self):
        f = self.file
        index = f.find(".modinfo")
        texts = [t for t in f.content(index).split(b"\0") if t]
        number = self.rng.randrange(len(texts))
        # Tags evenly: `alias` and `parm` may stand there a hundred times.
        tags = sorted({t.partition(b"=")[0] for t in texts})
        tag = self.pick(tags)
        number = self.pick([i for i, t in enumerate(texts) if t.partition(b"=")[0] == tag])
        value = texts[number].partition(b"=")[2]
        # What keeps the length is what an editor of bytes would do.
        hows = ["drop", "empty", "value", "no =", "double", "other value", "key", "case", "cut", "more", "new", "new first", "whole"]
        how = self.pick([*hows, "crossed out", "blank", "bit"])
        out = list(texts)
        said = ""
        if how == "drop":
            del out[number]
        elif how == "empty":
            out[number] = tag + b"="
        elif how == "crossed out":
            out[number] = b"x" * len(out[number])
        elif how == "blank":
            out[number] = tag + b"=" + b" " * len(value)
        elif how == "bit":
            at = self.pick([0, len(out[number]) - 1, self.rng.randrange(len(out[number]))])
            out[number] = out[number][:at] + bytes([out[number][at] ^ 1]) + out[number][at + 1 :]
            said = repr(out[number][:40])
        elif how == "value":
            out[number] = tag + b"=" + self.pick(MODINFO_VALUES)
            said = repr(out[number][:40])
        elif how == "no =":
            out[number] = tag + value
        elif how == "double":
            out.insert(number, texts[number])
        elif how == "other value":
            out.insert(self.pick([number, number + 1]), tag + b"=" + self.pick(MODINFO_VALUES))
            said = repr(out[number][:40])
        elif how == "key":
            out[number] = self.pick([b"x" + tag[1:], tag + b"x", tag[:-1], tag.upper(), b" " + tag]) + b"=" + value
            said = repr(out[number][:40])
        elif how == "case":
            out[number] = tag + b"=" + value.swapcase()
        elif how == "cut":
            out[number] = tag + b"=" + self.pick([value[:-1], value[1:]])
        elif how == "more":
            out[number] = tag + b"=" + self.pick([value + b" ", b" " + value, value + b"x", value + b",x", value + b"\n"])
        elif how in ("new", "new first"):
            text = self.pick(MODINFO_TAGS)
            out.insert(0 if how == "new first" else len(out), text)
            said, tag = repr(text), text.partition(b"=")[0]
        else:
            said = self.pick(["no end", "nothing", "one zero", "zero first", "ones"])
            data = b"".join(t + b"\0" for t in texts)
            data = {"no end": data[:-1], "nothing": b"", "one zero": b"\0", "zero first": b"\0" + data, "ones": b"\1" * len(data)}[said]
            f.set_content(index, data)
            return ".modinfo", said, ""
        f.set_content(index, b"".join(t + b"\0" for t in out))
        return f".modinfo:{tag.decode('latin1')}", how, said

    def strings(self):
        f = self.file
        index = self.pick([i for i, h in enumerate(f.headers) if h[1] == STRTAB])
        data = bytearray(f.content(index))
        how = self.pick(["first", "last", "cut", "emptied", "zeros", "no end", "rename", "symbol", "byte"])
        said = ""
        if how == "first":
            data[0] = self.pick([1, 0x41, 0xFF])
        elif how == "last":
            data[-1] = 0x41
        elif how == "cut":
            said = self.pick([1, 2, len(data) // 2, len(data) - 1])
            data = data[: len(data) - said]
        elif how == "emptied":
            data = b""
        elif how == "zeros":
            data = bytes(len(data))
        elif how == "no end":
            data = data.replace(b"\0", b"x")
            data[0] = data[-1] = 0
        elif how == "byte":
            said = self.rng.randrange(1, len(data))
            data[said] ^= 1 << self.rng.randrange(8)
        else:
            names = [n for n in bytes(data).split(b"\0") if n]
            if how == "symbol":  # one that the module does not define
                table = f.headers[f.symtab()][6]
                names = [f.string(table, s[0]).encode("latin1") for _, s in f.symbols()[1:] if s[3] == 0]
                index, data = table, bytearray(f.content(table))
            if not names:
                return None
            name = self.pick(names)
            new = self.pick([b"x" + name[1:], name[:-1] + b"\0", b"\0" * len(name), name[:-1] + b"x", b"printk"[: len(name)]])
            new += bytes(len(name) - len(new))
            data = bytes(data).replace(b"\0" + name + b"\0", b"\0" + new + b"\0", 1)
            said = f"{name.decode('latin1')} -> {new.decode('latin1')!r}"
        f.set_content(index, bytes(data))
        return f.names[index], how, said

    def record(self):
        f = self.file
        tables = [i for i, n in enumerate(f.names) if f.headers[i][1] not in (NOBITS, SHT_RELA) and f.headers[i][5]]
        tables = [i for i in tables if f.record_format(f.names[i])]
        if not tables:
            return None
        index = self.pick(tables)
        name = f.names[index]
        entry, fields = f.record_format(name)
        data = bytearray(f.content(index))
        count = max(1, len(data) // entry)
        number = self.pick([0, count - 1, self.rng.randrange(count)])
        at = entry * number
        how = self.pick(["field", "field", "field", "unrelocated", "less", "more", "zero", "ones", "cut", "grown", "double", "swap", "byte"])
        said = str(number)
        if how == "field" or how == "unrelocated":
            field, offset, size = self.pick([x for x in fields if at + x[1] + x[2] <= len(data)] or [("byte", 0, 1)])
            if how == "unrelocated":
                tables = f.relocations_of(index)
                found = [
                    f.headers[t][4] + r
                    for t in tables
                    for r in range(0, f.headers[t][5], RELA)
                    if at + offset <= f.get(f.headers[t][4] + r, 8) < at + offset + size
                ]
                if not found:
                    return None
                f.put(self.pick(found) + 8, 8, 0)
                return name, f"{field} unrelocated", said
            now = int.from_bytes(data[at + offset : at + offset + size], "little")
            value = self.edge(size, [now, count, len(data)] if size > 1 else [now])
            f.put(f.headers[index][4] + at + offset, size, value)
            return name, field, f"{value:#x} of {number}"
        if how == "less":
            data = data[:at] if number else data[: len(data) - entry]
        elif how == "more":
            data += data[at : at + entry]
        elif how == "zero":
            data[at : at + entry] = bytes(len(data[at : at + entry]))
        elif how == "ones":
            data[at : at + entry] = b"\xff" * len(data[at : at + entry])
        elif how == "cut":
            said = self.pick([1, entry // 2 or 1, len(data) - 1, len(data) - entry + 1])
            data = data[: max(0, len(data) - said)]
        elif how == "grown":
            said = self.pick([1, 4, 8, entry, entry - 1])
            data += bytes(said)
        elif how == "double":
            data = data + data
        elif how == "swap":
            other = self.rng.randrange(count) * entry
            data[at : at + entry], data[other : other + entry] = data[other : other + entry], data[at : at + entry]
        else:
            place = self.rng.randrange(len(data))
            data[place] ^= 1 << self.rng.randrange(8)
            said = hex(place)
        f.set_content(index, bytes(data))
        return name, how, said

    def section(self):
        f = self.file
        index = self.rng.randrange(1, f.shnum)
        name, header, data = f.names[index], f.headers[index], f.content(index)
        _, type_, flags, _, offset, size, link, info, align, entsize = header
        how = self.pick(["missing", "null", "double", "double empty", "empty", "renamed", "twin", "type", "flags", "nobits", "bytes", "moved"])
        said = ""
        if how == "missing":
            f.set_field(index, "sh_name", f.new_name("." + "x" * 8))
        elif how == "null":
            at = f.shoff + 64 * index
            f.data[at : at + 64] = bytes(64)
        elif how == "double":
            f.add_section(name, type_, flags, b"" if type_ == NOBITS else data, link, info, align, entsize, size)
        elif how == "double empty":
            f.add_section(name, type_, flags, b"", link, info, align, entsize, 0)
        elif how == "empty":
            f.set_field(index, "sh_size", 0)
        elif how == "renamed":
            said = self.pick(SPECIAL_NAMES)
            f.set_field(index, "sh_name", f.new_name(said))
        elif how == "twin":
            said = self.pick(n for n in f.names if n)
            f.set_field(index, "sh_name", f.new_name(said))
        elif how == "type":
            said = hex(self.pick(TYPES))
            f.set_field(index, "sh_type", int(said, 16))
        elif how == "flags":
            said = hex(self.pick([0, 2, 3, 4, 6, 7, 0x20, 0x200, flags ^ 2, flags ^ 3, flags ^ 4]))
            f.set_field(index, "sh_flags", int(said, 16))
        elif how == "nobits":
            f.set_field(index, "sh_type", NOBITS if type_ != NOBITS else PROGBITS)
        elif how == "moved":
            if type_ == NOBITS:
                return None
            f.set_field(index, "sh_offset", f.append(data))
        else:
            if not data or type_ == NOBITS:
                return None
            at = self.rng.randrange(len(data))
            value = self.pick([0, 0xFF, data[at] ^ 1 << self.rng.randrange(8)])
            f.put(offset + at, 1, value)
            said = f"{value:#x} at {at:#x}"
        return name, how, said

    def added(self):
        f = self.file
        name = self.pick(SPECIAL_NAMES)
        type_ = self.pick([PROGBITS, PROGBITS, PROGBITS, NOBITS, NOTE, STRTAB, 14, SYMTAB, SHT_RELA, 0])
        flags = self.pick([ALLOC, ALLOC, 3, 6, 0])
        data = self.pick([b"", bytes(8), bytes(64), b"\1" * 12, b"\xff" * 64, b"GPL\0" * 4, struct.pack("<I", 1) * 20])
        link = self.pick([0, f.symtab(), f.shstrndx])
        info = self.pick([0, 0, f.find(".data") or 1, f.find(".text") or 1, f.shnum, f.shnum + 1])
        f.add_section(name, type_, flags, data, link, info, self.pick([0, 1, 8, 64]), self.pick([0, 24]))
        what = f"{data[:4].hex()}*{len(data)} flags {flags:#x} link {link} info {info}"
        return name, f"type {type_}", what

    def this_module(self):
        f = self.file
        index = f.find(".gnu.linkonce.this_module")
        offset, size = f.headers[index][4:6]
        how = self.pick(["word", "word", "word", "byte", "name", "size", "relocation"])
        if how == "word":
            at = self.rng.randrange(size // 8) * 8
            value = self.edge(8)
            f.put(offset + at, 8, value)
            return "this_module", "word", f"{value:#x} at {at:#x}"
        if how == "byte":
            at = self.rng.randrange(size)
            value = self.pick([self.edge(1), f.get(offset + at, 1) ^ 1 << self.rng.randrange(8)])
            f.put(offset + at, 1, value)
            return "this_module", "byte", f"{value:#x} at {at:#x}"
        if how == "name":
            at = 24  # behind state and list, on every 64-bit kernel
            new = self.pick([b"", b"a", b"/", b"..", b"a/b", b"a b", b"\xff\xfe", b"A" * 55, b"A" * 56, b"A" * 64, b"vmlinux", b"kernel", b"%s%s"])
            new = self.pick([new + b"\0", new])
            f.data[offset + at : offset + at + len(new)] = new
            return "this_module", "name", repr(new)
        if how == "size":
            value = self.pick([0, 1, 8, 24, 80, 512, size - 64, size - 8, size - 1, size + 1, size + 8, size + 64])
            data = f.content(index)
            f.set_content(index, (data + bytes(64))[:value])
            return "this_module", "size", hex(value)
        tables = f.relocations_of(index)
        if not tables:
            return None
        number = self.rng.randrange(f.headers[tables[0]][5] // RELA)
        at = f.headers[tables[0]][4] + RELA * number
        value = self.rng.randrange(size // 8) * 8
        f.put(at, 8, value)
        return "this_module", "relocation", f"{value:#x} of {number}"

    def cut(self):
        f = self.file
        size = len(f.data)
        table = f.shoff + 64 * f.shnum
        how = self.pick(["cut", "grown", "signature", "front"])
        if how == "cut":
            section = self.pick(f.headers)
            value = self.pick([0, 1, 4, 16, 63, 64, 65, f.shoff, f.shoff + 64, table - 64, table - 1, table, size - 1, size // 2])
            value = self.pick([value, section[4], section[4] + section[5], section[4] + section[5] - 1])
            value = max(1, min(value, size - 1))  # without a byte there is no system call
            del f.data[value:]
        elif how == "grown":
            value = self.pick([1, 7, 8, 64, 4096])
            f.data += self.pick([b"\0", b"\xff"]) * value
        elif how == "signature":
            magic = b"~Module signature appended~\n"
            info = self.pick([bytes(12), bytes(8) + b"\0\0\1\0", b"\0\0\2" + bytes(5) + b"\0\0\0\x10", b"\0\0\2" + bytes(5) + b"\xff\xff\xff\xff"])
            value = self.pick(["only", "short", "info", "twice", "no newline", "data"])
            f.data += {
                "only": magic,
                "short": info[:4] + magic,
                "info": info + magic,
                "twice": magic + magic,
                "no newline": info + magic[:-1],
                "data": bytes(16) + info + magic,
            }[value]
            value = f"{value} {info.hex()}"
        else:
            data = self.pick([b"\0", b"\x7f", b"\x7fELF", b"#!/bin/sh\n"])  # compressed files are not the kernel's business
            f.data[0:0] = data
            value = data.hex()
        return "file", how, str(value)


def mutant(seed, index, bases):
    """The mutant of a seed and an index: the base it is made of, and what was changed. `bases` are names and bytes."""
    rng = random.Random(f"{seed}:{index}")
    name = rng.choice(sorted(bases))
    return name, Mutator(bases[name], rng).mutate()
