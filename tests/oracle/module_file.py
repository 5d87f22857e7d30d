"""A module's file as something to change: where its fields and records lie, and how sections are added or get other bytes."""

import struct

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
