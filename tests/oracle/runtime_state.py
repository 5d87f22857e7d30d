"""The documented list of bytes that nobody can know who has only the module and the kernel: state of the running system.

Everything else that differs is an error of kmodld (or a new entry for this list, with its reason).
"""

import re
import struct
from dataclasses import dataclass

from elf import SHF_ALLOC, SHT_SYMTAB, SYM

THIS_MODULE = ".gnu.linkonce.this_module"
PERCPU = ".data..percpu"
SHN_LORESERVE = 0xFF00

# Members of struct module that hold heap pointers or list links.
MODULE_MEMBERS = {
    "list": "link in the list of modules",
    "mkobj": "kobject",
    "modinfo_attrs": "heap pointer",
    "version": "heap pointer",
    "srcversion": "heap pointer",
    "imported_namespaces": "heap pointer",
    "holders_dir": "heap pointer",
    "args": "heap pointer",
    "sect_attrs": "heap pointer",
    "notes_attrs": "heap pointer",
    "btf_data": "heap pointer",
    "btf_base_data": "heap pointer",
    "bug_list": "link in the list of bug tables",
    "source_list": "list of users",
    "target_list": "list of used modules",
    "its_page_array": "heap pointer",
    "core_layout.mtn": "node of the tree of modules",
    "init_layout.mtn": "node of the tree of modules",
    "mem.mtn": "node of the tree of modules",
}


@dataclass(frozen=True)
class Objects:
    """A kind of variable; `members` of `structure` (all of the variable if none are named) are run-time state."""

    symbol: str
    structure: str
    members: tuple
    why: str


EVENT_MEMBERS = ("list", "event.node", "event.list", "event.type")
OBJECTS = [
    Objects(r"event_class_\w+", "trace_event_class", ("fields",), "list of the event's fields, on the heap"),
    Objects(r"event_\w+", "trace_event_call", EVENT_MEMBERS, "links and number of a trace event"),
    Objects(r"__SCK__\w+", "static_call_key", ("mods", "type"), "list of the modules that use the key, on the heap"),
]


@dataclass(frozen=True)
class Hole:
    """Bytes in memory that are not compared."""

    start: int
    size: int
    why: str


def holes(stage, elf, meta, facts):
    """All of a module that is not compared at a stage."""
    found = list(_unplaced_symbols(elf, meta))
    structures = facts.get("structures", {})
    if stage != "final" or "module" not in structures:
        this = _address(meta, THIS_MODULE)
        return found + [Hole(this["addr"], this["size"], "struct module")]
    found += _struct_module(meta, structures)
    found += _objects(elf, meta, structures)
    found += _srcu(elf, meta, structures)
    found += _dyndbg_classes(meta, structures)
    return found


def _address(meta, name):
    for section in meta["sections"]:
        if section["name"] == name:
            return {"addr": int(section["addr"], 16), "size": section["size"]}
    return None


def _unplaced_symbols(elf, meta):
    """st_value of symbols of sections that are not kept: it points into the copy of the file that was freed."""
    table = next(s for s in elf.sections if s.type == SHT_SYMTAB)
    moved = next((int(s["addr"], 16) for s in meta["sections"] if s["index"] == table.index), None)
    if moved is None:
        return
    placed = {s["index"] for s in meta["sections"]}
    for number, symbol in enumerate(elf.symbols()):
        kept = symbol.shndx in placed or elf.sections[symbol.shndx % elf.shnum].name == PERCPU
        if 0 < symbol.shndx < SHN_LORESERVE and not kept:
            yield Hole(moved + number * SYM.size + 8, 8, "address in the temporary copy")


# Structures of members that are structures themselves.
INNER = {"event": "trace_event", "mem": "module_memory", "core_layout": "module_layout", "init_layout": "module_layout"}


def _member(structures, structure, path):
    """Offset and size of a member, as `member` or `member.member of it`; None if the kernel has no such."""
    name, _, inner = path.partition(".")
    place = structures[structure]["members"].get(name)
    if place is None or not inner:
        return place
    within = structures.get(INNER[name], {"members": {}})["members"].get(inner)
    return within and (place[0] + within[0], within[1])


def _struct_module(meta, structures):
    this = _address(meta, THIS_MODULE)["addr"]
    for path, why in MODULE_MEMBERS.items():
        place = _member(structures, "module", path)
        if place is None:
            continue
        # `mem` is an array.
        whole = structures["module"]["members"][path.partition(".")[0]][1]
        step = structures[INNER[path.partition(".")[0]]]["size"] if "." in path else whole
        for start in range(0, whole, step):
            yield Hole(this + start + place[0], place[1], f"struct module: {why}")


def _objects(elf, meta, structures):
    addresses = {s["index"]: int(s["addr"], 16) for s in meta["sections"]}
    for symbol in elf.symbols():
        if symbol.shndx not in addresses or not symbol.size:
            continue
        kind = next((o for o in OBJECTS if re.fullmatch(o.symbol, symbol.name)), None)
        structure = structures.get(kind.structure) if kind else None
        if structure is None or structure["size"] != symbol.size:
            continue
        for path in kind.members:
            place = _member(structures, kind.structure, path)
            if place:
                yield Hole(addresses[symbol.shndx] + symbol.value + place[0], place[1], kind.why)


def _srcu(elf, meta, structures):
    """Every srcu_struct that ___srcu_struct_ptrs points to."""
    section = elf.section("___srcu_struct_ptrs")
    if section is None or not section.flags & SHF_ALLOC or "srcu_struct" not in structures:
        return
    for pointer in meta.get("srcu_structs", []):
        yield Hole(int(pointer, 16), structures["srcu_struct"]["size"], "lists and per-cpu data of SRCU")


def _dyndbg_classes(meta, structures):
    classes = _address(meta, "__dyndbg_classes")
    layout = structures.get("ddebug_class_map")
    if classes is None or layout is None:
        return
    offset, size = layout["members"]["link"]
    for start in range(0, classes["size"], layout["size"]):
        yield Hole(classes["addr"] + start + offset, size, "link in the list of debug classes")
