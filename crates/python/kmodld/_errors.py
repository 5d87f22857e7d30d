"""Why something is not done."""

from __future__ import annotations

import os
from typing import List, Optional, Tuple

from . import _types


class Error(Exception):
    """A file cannot be used, or what was asked for does not fit together."""


class LoadError(Error):
    """A kernel gives no module: all that it says."""

    errno: Optional[int] = None
    """What the system call returns; ``None`` if it returns nothing, or that is not known."""
    findings: List[_types.Finding]

    def __init__(self, text: str, findings: List[_types.Finding]) -> None:
        super().__init__(text)
        self.findings = findings

    @property
    def dmesg(self) -> List[str]:
        """The kernel's log, up to where it stops."""
        lines: List[str] = []
        for finding in self.findings:
            lines.extend(finding.dmesg.split("\n") if finding.dmesg else [])
            if finding.stops_here:
                break
        return lines


class Refused(LoadError):
    """The kernel refuses the module with ``errno``; it crashes if that is ``None``."""

    def __init__(self, text: str, findings: List[_types.Finding], errno: Optional[int]) -> None:
        super().__init__(text, findings)
        self.errno = errno

    @property
    def strerror(self) -> Optional[str]:
        """The errno in words."""
        return None if self.errno is None else os.strerror(self.errno)


class Undecided(LoadError):
    """That hangs on rules that were not judged."""

    unjudged: List[_types.Unjudged]

    def __init__(self, text: str, findings: List[_types.Finding], unjudged: List[_types.Unjudged]) -> None:
        super().__init__(text, findings)
        self.unjudged = unjudged


class Incomplete(LoadError):
    """The kernel takes the module, but the addresses of these symbols are not known."""

    symbols: List[str]

    def __init__(self, text: str, findings: List[_types.Finding], symbols: List[str]) -> None:
        super().__init__(text, findings)
        self.symbols = symbols


def make(
    kind: str,
    text: str,
    errno: Optional[int],
    findings: str,
    symbols: List[str],
    unjudged: List[Tuple[str, str]],
) -> Error:
    """The exception for what the native part says."""
    said = _types.findings(findings)
    if kind == "Refused":
        return Refused(text, said, errno)
    if kind == "Undecided":
        return Undecided(text, said, [_types.Unjudged(*each) for each in unjudged])
    if kind == "Incomplete":
        return Incomplete(text, said, symbols)
    return Error(text)
