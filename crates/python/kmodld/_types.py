"""What kmodld gives out: plain data."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional


@dataclass(frozen=True)
class Finding:
    """One thing that the kernel would say of a module, or that is worth knowing."""

    code: str
    """Rule of the specification, such as ``VER-6``."""
    severity: str
    """``error``, ``oops``, ``warning`` or ``note``."""
    explanation: str
    """What is wrong in this case."""
    errno: Optional[str] = None
    """Name of what the system call returns because of it."""
    dmesg: Optional[str] = None
    """The kernel's log lines, joined by newlines."""
    subject: str = "module"
    """What it is about."""
    hint: Optional[str] = None
    """What to do about it."""
    exporter: Optional[str] = None
    """Who exports the symbol that it is about: ``vmlinux`` or a module."""
    stops_here: bool = False
    """The kernel stops here."""


@dataclass(frozen=True)
class Unjudged:
    """A rule that was not judged."""

    code: str
    needs: str
    """What would settle it."""


@dataclass(frozen=True)
class Verdict:
    """What a kernel makes of one module."""

    file: Optional[str]
    verdict: str
    """``loads``, ``refused``, ``oops``, ``undecided``, or ``unreadable``."""
    module: Optional[str] = None
    kernel: Optional[str] = None
    coverage: Optional[str] = None
    """How well that kernel is known: ``exact``, ``rules`` or ``unknown``."""
    errno: Optional[str] = None
    dmesg: List[str] = field(default_factory=list)
    taints: str = ""
    error: Optional[str] = None
    """Why the file cannot be read."""
    findings: List[Finding] = field(default_factory=list)
    unjudged: List[Unjudged] = field(default_factory=list)

    @property
    def loads(self) -> bool:
        """Does the kernel take it?"""
        return self.verdict == "loads"


@dataclass(frozen=True)
class Symbol:
    """A symbol of a module."""

    name: str
    address: Optional[int]
    size: int
    kind: str
    """``function``, ``object``, ``section``, or the number of another type."""
    is_global: bool
    is_undefined: bool


@dataclass(frozen=True)
class Import:
    """What a module takes from elsewhere, or gives to others."""

    name: str
    address: Optional[int]
    owner: str
    """``vmlinux``, or a module."""
    crc: Optional[int]
    gpl_only: bool
    namespace: str


@dataclass(frozen=True)
class Region:
    """A region of a module's memory."""

    name: str
    base: int
    size: int
    writable: bool
    executable: bool
    memory: memoryview = field(repr=False, compare=False)
    """All its bytes, read-only."""


@dataclass(frozen=True)
class Section:
    """A section of a module."""

    index: int
    name: str
    region: Optional[str]
    address: Optional[int]
    """``None`` if the kernel does not move it."""
    size: int


@dataclass(frozen=True)
class Relocation:
    """A relocation that was applied."""

    address: int
    size: int
    kind: str
    symbol: str
    addend: int


@dataclass(frozen=True)
class Patch:
    """Bytes that a step after relocation changed."""

    address: int
    size: int
    step: str
    detail: Optional[str]
    symbol: Optional[str]


@dataclass(frozen=True)
class Difference:
    """Bytes that differ from what should be there."""

    address: int
    expected: bytes
    found: bytes
    kind: str
    """``runtime``, ``choice``, ``patch``, ``relocation`` or ``unexplained``: what writes there."""
    cause: str
    """That in words."""
    is_sound: bool
    """A sound kernel does that."""
    symbol: Optional[str]


@dataclass(frozen=True)
class Place:
    """A region of a module in a dump."""

    name: str
    address: int
    size: int


@dataclass(frozen=True)
class LegalChange:
    """Bytes that differ from the file's in a way that the kernel explains."""

    address: int
    size: int
    what: str
    why: str


@dataclass(frozen=True)
class Alarm:
    """Bytes in memory, or a module, that nothing explains."""

    address: int
    size: int
    kind: str
    """``code``, ``rodata``, ``function-pointer``, ``hidden-module``, ... as ``kmodld schema verify`` lists them."""
    message: str
    module: Optional[str] = None
    symbol: Optional[str] = None
    section: Optional[str] = None
    expected: bytes = b""
    """What should be there."""
    found: bytes = b""
    """What is."""
    expected_code: Optional[str] = None
    found_code: Optional[str] = None
    target: Optional[int] = None
    """Where what is there leads."""
    target_is: Optional[str] = None
    legal: List[str] = field(default_factory=list)
    """What could legally be there."""


@dataclass(frozen=True)
class VerifiedModule:
    """A module in a dump, judged."""

    name: str
    base: int
    struct_module: int
    regions: List[Place]
    verdict: str
    """``clean``, ``changed``, ``no-file`` or ``undecided``."""
    alarms: int
    file: Optional[str] = None
    proof: Optional[str] = None
    """By what the file is proven to be its: ``build-id``, ``srcversion`` or ``fit``."""
    bytes: int = 0
    sites: int = 0
    pointers: int = 0
    changes: List[LegalChange] = field(default_factory=list)
    unjudged: List[str] = field(default_factory=list)


@dataclass(frozen=True)
class VerifyReport:
    """All that :meth:`kmodld.Kernel.verify` found out."""

    release: str
    banner: str
    slide: int
    """How far the kernel runs from its link addresses."""
    found_by: str
    modules: List[VerifiedModule]
    """Oldest first."""
    alarms: List[Alarm]
    """By address."""
    damage: List[str] = field(default_factory=list)
    unjudged: List[str] = field(default_factory=list)
    """What could not be judged of the kernel as a whole."""

    @property
    def is_decided(self) -> bool:
        """Was everything judged?"""
        judged = ("clean", "changed")
        return not self.unjudged and all(m.verdict in judged and not m.unjudged for m in self.modules)

    @property
    def is_clean(self) -> bool:
        """Was everything judged, and is nothing changed?"""
        return self.is_decided and not self.alarms


def _number(entry: Dict[str, Any], *names: str) -> Dict[str, Any]:
    return {name: int(entry[name], 16) for name in names if entry.get(name) is not None}


def _known(of: Any, entry: Dict[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in entry.items() if name in of.__dataclass_fields__}


def verify_report(text: str) -> VerifyReport:
    """Of the document of ``verify --json``."""
    document = json.loads(text)

    def place(entry: Dict[str, Any]) -> Place:
        return Place(entry["name"], int(entry["addr"], 16), entry["size"])

    def change(entry: Dict[str, Any]) -> LegalChange:
        return LegalChange(int(entry["addr"], 16), entry["size"], entry["what"], entry["why"])

    def module(entry: Dict[str, Any]) -> VerifiedModule:
        own = {**_known(VerifiedModule, entry), **_number(entry, "base", "struct_module")}
        own["regions"] = [place(each) for each in entry["regions"]]
        own["changes"] = [change(each) for each in entry["changes"]]
        return VerifiedModule(**own)

    def alarm(entry: Dict[str, Any]) -> Alarm:
        own = {**_known(Alarm, entry), **_number(entry, "target"), "address": int(entry["addr"], 16)}
        own.update(expected=bytes.fromhex(entry["expected"]), found=bytes.fromhex(entry["found"]))
        return Alarm(**own)

    own = {**_known(VerifyReport, document), **_number(document, "slide")}
    own["modules"] = [module(each) for each in document["modules"]]
    own["alarms"] = [alarm(each) for each in document["alarms"]]
    return VerifyReport(**own)


def finding(entry: Dict[str, Any]) -> Finding:
    """Of one entry of the JSON documents."""
    known = Finding.__dataclass_fields__
    return Finding(**{name: value for name, value in entry.items() if name in known})


def findings(text: str) -> List[Finding]:
    """Of a JSON array."""
    return [finding(entry) for entry in json.loads(text)]


def verdict(text: str) -> Verdict:
    """Of a line of ``check --jsonl``."""
    entry = json.loads(text)
    known = Verdict.__dataclass_fields__
    fields = {name: value for name, value in entry.items() if name in known}
    fields["findings"] = [finding(each) for each in entry.get("findings", [])]
    fields["unjudged"] = [Unjudged(**each) for each in entry.get("unjudged", [])]
    return Verdict(**fields)


def memory_map(title: str, regions: List[Region], sections: List[Section]) -> str:
    """A module's memory as an HTML table."""
    rows = []
    for region in regions:
        rights = "r" + ("w" if region.writable else "-") + ("x" if region.executable else "-")
        inside = [section for section in sections if section.region == region.name and section.size]
        names = ", ".join(f"{section.name} ({section.size:#x})" for section in inside)
        cells = (f"{region.base:#018x}", f"{region.size:#x}", region.name, rights, names)
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("address", "size", "region", "rights", "sections"))
    return f"<table><caption>{html.escape(title)}</caption><tr>{head}</tr>{''.join(rows)}</table>"
