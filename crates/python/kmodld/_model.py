"""Kernels and modules."""

from __future__ import annotations

import json
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from . import _native, _types

AnyPath = Union[str, "PathLike[str]"]
File = Union[AnyPath, bytes, bytearray, memoryview]


def _bytes(file: File) -> bytes:
    """A file by its path, or its bytes themselves."""
    if isinstance(file, (bytes, bytearray, memoryview)):
        return bytes(file)
    return Path(file).read_bytes()


class Kernel:
    """A kernel, made of whatever describes it, with the modules loaded so far.

    ``image`` is a ``vmlinuz``, ``vmlinux`` or arm64 ``Image``, a SPEC, or a tree with ``boot`` and ``lib/modules``;
    ``symtab`` its ``/proc/kallsyms`` or System.map, ``symvers`` its Module.symvers, ``config`` its ``.config``, ``modules`` what is
    loaded before. With ``accept_undecided`` these may hang on rules that cannot be judged.
    """

    def __init__(
        self,
        image: Optional[AnyPath] = None,
        *,
        spec: Optional[bytes] = None,
        symtab: Optional[AnyPath] = None,
        symvers: Optional[AnyPath] = None,
        config: Optional[AnyPath] = None,
        release: Optional[str] = None,
        cmdline: str = "",
        modules: Sequence[AnyPath] = (),
        accept_undecided: bool = False,
    ) -> None:
        self._native = _native.Kernel(
            image, spec, symtab, symvers, config, release, cmdline, list(modules), accept_undecided
        )

    def __repr__(self) -> str:
        return f"<kmodld.Kernel {self.release or 'of unknown release'} {self.arch or ''}>"

    @property
    def release(self) -> str:
        """``uname -r``, empty if not known."""
        return self._native.release

    @property
    def arch(self) -> Optional[str]:
        """``uname -m``, ``None`` if not known."""
        return self._native.arch

    @property
    def coverage(self) -> str:
        """How far what is said of it is known to be right: ``exact``, ``rules`` or ``unknown``."""
        return self._native.coverage

    @property
    def modules(self) -> List[str]:
        """The modules that are loaded, newest first."""
        return self._native.modules

    def symbol(self, name: str) -> Optional[int]:
        """Address of a symbol of its own."""
        return self._native.symbol(name)

    def load(
        self,
        file: File,
        *,
        base: Optional[int] = None,
        regions: Optional[Mapping[str, int]] = None,
        percpu: Optional[int] = None,
        params: str = "",
        stage: str = "final",
        choices: bool = False,
        accept_undecided: bool = False,
    ) -> Module:
        """Loads a module without adding it to the kernel: where the kernel would put it, with its first region at ``base``, or
        with ``regions`` at given addresses; up to a stage (``relocated``, ``kallsyms`` or ``final``). ``choices`` keeps all that sites
        which depend on the running system may hold, for :meth:`Module.compare`.

        Raises :class:`Refused`, :class:`Undecided` or :class:`Incomplete`, or :class:`Error` if the file cannot be used.
        """
        how = (base, list((regions or {}).items()), percpu, params, stage, choices, accept_undecided)
        return Module(self._native.load(_bytes(file), how))

    def check(self, file: File, *, name: Optional[str] = None) -> _types.Verdict:
        """The verdict on a module, with all reasons."""
        if name is None:
            name = "module" if isinstance(file, (bytes, bytearray, memoryview)) else fspath(file)
        return _types.verdict(self._native.check(name, _bytes(file)))

    def insmod(self, file: File, params: str = "") -> List[_types.Finding]:
        """Loads a module and keeps it; its init function returns 0. What the kernel says all the same."""
        return _types.findings(self._native.insmod(_bytes(file), params))

    def rmmod(self, name: str) -> List[_types.Finding]:
        """Removes a module."""
        return _types.findings(self._native.rmmod(name))

    def verify(
        self, dump: AnyPath = "/proc/kcore", *, only: Sequence[str] = (), files: Sequence[AnyPath] = ()
    ) -> _types.VerifyReport:
        """Is what lies in the memory of a dump, or of the running kernel, what should lie there? Every module there is compared with
        its file in the kernel's tree or in ``files``; only those named in ``only``, if there are any. The kernel has to be made of
        files, not of ``spec``.

        Raises :class:`Error` if the dump cannot be read, or is not of this kernel.
        """
        return _types.verify_report(self._native.verify(dump, list(only), list(files)))

    def load_needed(self, path: AnyPath) -> List[Path]:
        """Loads what modprobe would load before the module of a file. The files, in this order."""
        return [Path(file) for file in self._native.load_needed(path)]


class Module:
    """A module in memory, at its final addresses."""

    def __init__(self, native: _native.Module) -> None:
        self._native = native

    def __repr__(self) -> str:
        return f"<kmodld.Module {self.name} for {self.release}, {self.stage}>"

    def _repr_html_(self) -> str:
        title = f"{self.name} for {self.release} ({self.arch}), {self.stage}"
        return _types.memory_map(title, list(self.regions.values()), self.sections)

    @property
    def name(self) -> str:
        """Its name."""
        return self._native.name

    @property
    def release(self) -> str:
        """Release of the kernel that it is loaded into."""
        return self._native.release

    @property
    def arch(self) -> str:
        """``uname -m``"""
        return self._native.arch

    @property
    def stage(self) -> str:
        """The stage that its memory shows."""
        return self._native.stage

    @property
    def init(self) -> Optional[int]:
        """Address of its init function."""
        return self._native.init

    @property
    def exit(self) -> Optional[int]:
        """Address of its exit function."""
        return self._native.exit

    @property
    def depends(self) -> List[str]:
        """The modules that it depends on."""
        return self._native.depends

    @cached_property
    def findings(self) -> List[_types.Finding]:
        """What the kernel says of it all the same."""
        return _types.findings(self._native.findings)

    @cached_property
    def unjudged(self) -> List[_types.Unjudged]:
        """Rules that were not judged, where that was accepted."""
        return [_types.Unjudged(*each) for each in self._native.unjudged]

    @cached_property
    def regions(self) -> Dict[str, _types.Region]:
        """Its memory by the names of the regions, in the order of allocation."""
        return {
            each[0]: _types.Region(*each, memory=memoryview(self._native.region_bytes(each[0])))
            for each in self._native.regions
        }

    @cached_property
    def sections(self) -> List[_types.Section]:
        """Its sections, those too that the kernel does not move."""
        return [_types.Section(*each) for each in self._native.sections]

    def section(self, name: str) -> bytes:
        """The bytes of the first section of that name; :class:`KeyError` if there is none."""
        return self._native.section_bytes(name)

    def read(self, address: int, len: int) -> bytes:
        """Bytes at an address; :class:`IndexError` if not all of them are in one region."""
        found = self._native.read(address, len)
        if found is None:
            raise IndexError(f"{len:#x} bytes at {address:#x} are not all in one region of {self.name}")
        return found

    def symbol(self, name: str) -> _types.Symbol:
        """The symbol of that name: the global one of several; :class:`KeyError` if there is none."""
        found = self._native.symbol(name)
        if found is None:
            raise KeyError(name)
        return _types.Symbol(*found)

    @cached_property
    def symbols(self) -> List[_types.Symbol]:
        """All symbols, imported ones too."""
        return [_types.Symbol(*each) for each in self._native.symbols]

    @cached_property
    def imports(self) -> List[_types.Import]:
        """What it takes from the kernel and from other modules."""
        return [_types.Import(*each) for each in self._native.imports]

    @cached_property
    def exports(self) -> List[_types.Import]:
        """What it exports."""
        return [_types.Import(*each) for each in self._native.exports]

    @cached_property
    def relocations(self) -> List[_types.Relocation]:
        """The relocations that were applied, by address."""
        return [_types.Relocation(*each) for each in self._native.relocations()]

    @cached_property
    def patches(self) -> List[_types.Patch]:
        """What was changed after relocation, in order."""
        return [_types.Patch(*each) for each in self._native.patches()]

    def compare(self, address: int, memory: Union[bytes, bytearray, memoryview]) -> List[_types.Difference]:
        """Compares memory at an address with what should be there: each differing range, with its cause."""
        return [_types.Difference(*each) for each in self._native.compare(address, bytes(memory))]

    def to_elf(self, path: Optional[AnyPath] = None, *, debug: bool = True) -> bytes:
        """One ELF file of it, as debuggers and decompilers open it; written to ``path`` too, if that is given."""
        elf = self._native.elf(debug)
        if path is not None:
            Path(path).write_bytes(elf)
        return elf

    def document(self) -> Dict[str, Any]:
        """The document of ``kmodld link --json``."""
        document: Dict[str, Any] = json.loads(self._native.document())
        return document
