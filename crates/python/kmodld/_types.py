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
