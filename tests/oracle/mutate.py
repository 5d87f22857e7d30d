"""Changes one thing in a module. The same seed, index and module give the same mutant, and its name tells the change.

Places are chosen evenly before what lies in them, so that a table of two records is reached as often as one of a thousand symbols.
"""

import random
import struct
from dataclasses import dataclass

SHDR = struct.Struct("<IIQQQQIIQQ")
SHDR_FIELDS = {
    "sh_name": (0, 4),
    "sh_type": (4, 4),
    "sh_flags": (8, 8),
    "sh_addr": (16, 8),
    "sh_offset": (24, 8),
    "sh_size": (32, 8),
    "sh_link": (40, 4),
    "sh_info": (44, 4),
    "sh_addralign": (48, 8),
    "sh_entsize": (56, 8),
}
EHDR_FIELDS = {
    "ei_mag0": (0, 1),
    "ei_mag3": (3, 1),
    "ei_class": (4, 1),
    "ei_data": (5, 1),
    "ei_version": (6, 1),
    "ei_osabi": (7, 1),
    "ei_abiversion": (8, 1),
    "ei_pad": (15, 1),
    "e_type": (16, 2),
    "e_machine": (18, 2),
    "e_version": (20, 4),
    "e_entry": (24, 8),
    "e_phoff": (32, 8),
    "e_shoff": (40, 8),
    "e_flags": (48, 4),
    "e_ehsize": (52, 2),
    "e_phentsize": (54, 2),
    "e_phnum": (56, 2),
    "e_shentsize": (58, 2),
    "e_shnum": (60, 2),
    "e_shstrndx": (62, 2),
}
SYM_FIELDS = {
    "st_name": (0, 4),
    "st_info": (4, 1),
    "st_other": (5, 1),
    "st_shndx": (6, 2),
    "st_value": (8, 8),
    "st_size": (16, 8),
}
SYM, RELA = 24, 24
PROGBITS, SYMTAB, STRTAB, SHT_RELA, NOTE, NOBITS = 1, 2, 3, 4, 7, 8
ALLOC = 2
X86_64 = 62

# Records of the tables that the loader and those it calls read: their size, and name, offset and size of each field.
POINTERS = (8, [("pointer", 0, 8)])
OFFSETS = (4, [("offset", 0, 4)])
WORDS = (8, [("word", 0, 8)])
KSYMTAB = (12, [("value", 0, 4), ("name", 4, 4), ("namespace", 8, 4)])
RECORDS = {
    "__versions": (64, [("crc", 0, 4), ("crc_high", 4, 4), ("name0", 8, 1), ("name", 8, 8), ("name_end", 56, 8)]),
    "__version_ext_crcs": (4, [("crc", 0, 4)]),
    "__version_ext_names": (1, [("byte", 0, 1)]),
    "__param": (
        40,
        [("name", 0, 8), ("mod", 8, 8), ("ops", 16, 8), ("perm", 24, 2), ("level", 26, 1), ("flags", 27, 1), ("arg", 32, 8)],
    ),
    "__ksymtab": KSYMTAB,
    "__ksymtab_gpl": KSYMTAB,
    "__ksymtab_strings": (1, [("byte", 0, 1)]),
    "__kcrctab": (4, [("crc", 0, 4)]),
    "__kcrctab_gpl": (4, [("crc", 0, 4)]),
    "__kflagstab": (1, [("flags", 0, 1)]),
    "__jump_table": (16, [("code", 0, 4), ("target", 4, 4), ("key", 8, 8)]),
    ".static_call_sites": (8, [("addr", 0, 4), ("key", 4, 4)]),
    ".static_call_tramp_key": (8, [("tramp", 0, 4), ("key", 4, 4)]),
    ".orc_unwind": (6, [("sp_offset", 0, 2), ("bp_offset", 2, 2), ("regs_type", 4, 2)]),
    ".orc_unwind_ip": OFFSETS,
    ".orc_header": WORDS,
    ".retpoline_sites": OFFSETS,
    ".return_sites": OFFSETS,
    ".call_sites": OFFSETS,
    ".ibt_endbr_seal": OFFSETS,
    ".cfi_sites": OFFSETS,
    ".smp_locks": OFFSETS,
    ".parainstructions": (16, [("instr", 0, 8), ("type", 8, 1), ("len", 9, 1)]),
    "__bug_table": (12, [("addr", 0, 4), ("file", 4, 4), ("line", 8, 2), ("flags", 10, 2)]),
    "__ex_table": (12, [("insn", 0, 4), ("fixup", 4, 4), ("type", 8, 2), ("data", 10, 2)]),
    "__mcount_loc": POINTERS,
    "__patchable_function_entries": POINTERS,
    "__tracepoints": (8, [("word", 0, 8)]),
    "__tracepoints_ptrs": OFFSETS,
    "__tracepoints_strings": (1, [("byte", 0, 1)]),
    "__bpf_raw_tp_map": (32, [("tp", 0, 8), ("func", 8, 8), ("num_args", 16, 4), ("writable_size", 20, 4)]),
    "_ftrace_events": POINTERS,
    "_ftrace_eval_map": POINTERS,
    "___srcu_struct_ptrs": POINTERS,
    "__dyndbg": (56, [("modname", 0, 8), ("function", 8, 8), ("filename", 16, 8), ("format", 24, 8), ("bits", 32, 8)]),
    ".BTF": (
        24,
        [
            ("magic", 0, 2),
            ("version", 2, 1),
            ("flags", 3, 1),
            ("hdr_len", 4, 4),
            ("type_off", 8, 4),
            ("type_len", 12, 4),
            ("str_off", 16, 4),
            ("str_len", 20, 4),
            ("type0_name", 24, 4),
            ("type0_info", 28, 4),
            ("type0_size", 32, 4),
        ],
    ),
    ".BTF_ids": (4, [("id", 0, 4)]),
    ".BTF.base": (24, [("magic", 0, 2), ("hdr_len", 4, 4), ("type_len", 12, 4), ("str_len", 20, 4)]),
}
ALTERNATIVES = {
    # Since v6.3 x86 has 32 bits of feature and flags.
    (X86_64, 14): [("instr", 0, 4), ("repl", 4, 4), ("cpuid", 8, 2), ("flags", 10, 2), ("instrlen", 12, 1), ("repllen", 13, 1)],
    (X86_64, 12): [("instr", 0, 4), ("repl", 4, 4), ("cpuid", 8, 2), ("instrlen", 10, 1), ("repllen", 11, 1)],
    (183, 12): [("orig", 0, 4), ("alt", 4, 4), ("cpucap", 8, 2), ("orig_len", 10, 1), ("alt_len", 11, 1)],
}
NOTE_FIELDS = (12, [("namesz", 0, 4), ("descsz", 4, 4), ("type", 8, 4), ("name", 12, 4), ("desc", 16, 4)])
# Names that the loader looks for. A section may lose such a name or get it.
SPECIAL_NAMES = [
    *RECORDS,
    ".altinstructions",
    ".altinstr_replacement",
    ".modinfo",
    ".gnu.linkonce.this_module",
    ".symtab",
    ".strtab",
    ".data..percpu",
    ".data..ro_after_init",
    ".init.text",
    ".exit.text",
    ".init.data",
    ".init.plt",
    ".plt",
    ".text.ftrace_trampoline",
    ".klp.rela.vmlinux..text",
    ".livepatch",
    "__ksymtab_gpl_future",
    "__ksymtab_unused",
    "__obsparm",
    "__dyndbg_classes",
    "__trace_printk_fmt",
    "_error_injection_whitelist",
    "_kprobe_blacklist",
    ".kprobes.text",
    ".noinstr.text",
    ".static_call.text",
    ".static_call_sites",
    ".static_call_tramp_key",
    ".note.Linux",
    ".note.gnu.build-id",
    ".note.gnu.property",
    ".ctors",
    ".init_array",
    ".codetag.alloc_tags",
    ".kunit_test_suites",
    ".kunit_init_test_suites",
    ".retpoline_sites",
    ".eh_frame",
    ".hyp.text",
    ".gnu.warning",
    ".exit.data",
    ".text",
    ".data",
    ".bss",
    ".its_thunk",
]
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


class File:
    """A well-formed module whose bytes are being changed."""

    def __init__(self, data):
        self.data = bytearray(data)
        (self.machine,) = struct.unpack_from("<H", data, 18)
        (self.shoff,) = struct.unpack_from("<Q", data, 40)
        self.shnum, self.shstrndx = struct.unpack_from("<HH", data, 60)
        self.headers = [SHDR.unpack_from(data, self.shoff + 64 * i) for i in range(self.shnum)]
        self.names = [self.string(self.shstrndx, h[0]) for h in self.headers]

    def string(self, table, at):
        start = self.headers[table][4] + at
        return self.data[start : self.data.index(b"\0", start)].decode("latin1")

    def find(self, name):
        return self.names.index(name) if name in self.names else None

    def content(self, index):
        _, type_, _, _, offset, size, *_ = self.headers[index]
        return bytes(size) if type_ == NOBITS else bytes(self.data[offset : offset + size])

    def put(self, at, size, value):
        self.data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def get(self, at, size):
        return int.from_bytes(self.data[at : at + size], "little")

    def field(self, index, name):
        """Place and size of a field of a section header."""
        at, size = SHDR_FIELDS[name]
        return self.shoff + 64 * index + at, size

    def set_field(self, index, name, value):
        self.put(*self.field(index, name), value)

    def append(self, data):
        """Puts bytes behind the file; where they lie."""
        self.data += bytes(-len(self.data) % 16)
        at = len(self.data)
        self.data += data
        return at

    def set_content(self, index, data):
        """Gives a section other bytes: in their place, or behind the file if they are more."""
        old = self.headers[index][5]
        if len(data) <= old and self.headers[index][1] != NOBITS:
            at = self.headers[index][4]
            self.data[at : at + len(data)] = data
        else:
            self.set_field(index, "sh_offset", self.append(data))
        self.set_field(index, "sh_size", len(data))

    def new_name(self, name):
        """The offset of a name in the section names: one that is there, or one more."""
        names = self.content(self.shstrndx)
        wanted = name.encode("latin1") + b"\0"
        at = names.find(b"\0" + wanted) + 1
        if at == 0:
            at = len(names)
            self.set_content(self.shstrndx, names + wanted)
        return at

    def add_section(self, name, type_, flags, data, link=0, info=0, align=8, entsize=0, size=None):
        """A section more. The table of headers moves behind the file."""
        name = self.new_name(name)
        offset = self.append(data)
        table = bytes(self.data[self.shoff : self.shoff + 64 * self.shnum])
        size = len(data) if size is None else size
        table += SHDR.pack(name, type_, flags, 0, offset, size, link, info, align, entsize)
        self.put(40, 8, self.append(table))
        self.put(60, 2, self.shnum + 1)

    def relocations_of(self, index):
        """Indices of the sections with relocations for a section."""
        return [i for i, h in enumerate(self.headers) if h[1] == SHT_RELA and h[7] == index]

    def symtab(self):
        return next(i for i, h in enumerate(self.headers) if h[1] == SYMTAB)

    def symbols(self):
        """Offset in the file, and the fields, of each symbol."""
        at, size = self.headers[self.symtab()][4:6]
        return [(at + i, struct.unpack_from("<IBBHQQ", self.data, at + i)) for i in range(0, size, SYM)]

    def record_format(self, name):
        index = self.find(name)
        size = self.headers[index][5]
        if name == ".altinstructions":
            for (machine, entry), fields in ALTERNATIVES.items():
                if machine == self.machine and size % entry == 0:
                    return entry, fields
        if self.headers[index][1] == NOTE:
            return NOTE_FIELDS
        return RECORDS.get(name)


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
            value = self.edge(8, [now, len(f.data), len(f.data) - f.headers[index][5], self.pick(f.headers)[4]])
        else:
            value = self.edge(8, [now, len(f.data), len(f.data) - f.headers[index][4], 2 * now])
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
            near = [now, 1 << 31, (1 << 64) - (1 << 31), 1 << 20, 1 << 27, (1 << 64) - (1 << 27)]
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
        how = self.pick(["drop", "empty", "value", "no =", "double", "other value", "key", "case", "cut", "more", "new", "new first", "whole"])
        out = list(texts)
        said = ""
        if how == "drop":
            del out[number]
        elif how == "empty":
            out[number] = tag + b"="
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
            value = self.edge(1)
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
            value = max(0, min(value, size - 1))
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
            data = self.pick([b"\xfd7zXZ\0", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"\0", b"#!/bin/sh\n"])
            f.data[0:0] = data
            value = data.hex()
        return "file", how, str(value)


def mutant(seed, index, bases):
    """The mutant of a seed and an index: the base it is made of, and what was changed. `bases` are names and bytes."""
    rng = random.Random(f"{seed}:{index}")
    name = rng.choice(sorted(bases))
    return name, Mutator(bases[name], rng).mutate()
