"""`Kernel.verify` and the hunter of contrib/tools, on dumps that are made here."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kmodld

from conftest import FIXTURES, ko
from dump import Dump, symtab

HUNTER = Path(os.environ["KMODLD_FIXTURES"]).parent / "contrib/tools/hunt_kmodld.py"
BASE = 0xFFFFFFFFC1000000
OTHER = 0xFFFFFFFFC2000000


@pytest.fixture
def running(spec: Path, tmp_path: Path) -> kmodld.Kernel:
    """The fixture kernel, with the symbols of what is in the dumps."""
    return kmodld.Kernel(spec, symtab=symtab(FIXTURES / "kallsyms", tmp_path / "kallsyms"))


def test_a_dump_is_verified(running: kmodld.Kernel, tmp_path: Path) -> None:
    module, dump = running.load(ko("chardev"), base=BASE), Dump()
    at = dump.add(module)
    report = running.verify(dump.save(tmp_path / "sound"), files=[ko("chardev")])
    assert report.alarms == [] and report.slide == 0 and report.release == running.release
    (entry,) = report.modules
    assert (entry.name, entry.base, entry.struct_module) == ("chardev", BASE, at)
    assert entry.bytes > 0 and entry.file == os.fspath(ko("chardev")) and entry.proof
    assert entry.regions[0].address == BASE and entry.regions[0].size == module.regions["text"].size
    # The dumps have neither the tree of modules nor /sys/module.
    assert not report.is_decided and not report.is_clean and "mod_tree" in report.unjudged
    # Without its file nothing is said of it.
    (entry,) = running.verify(tmp_path / "sound").modules
    assert entry.verdict == "no-file" and entry.alarms == 0


def hunter() -> "object":
    spec = importlib.util.spec_from_file_location("hunt_kmodld", HUNTER)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_hunter_finds_each_change(
    running: kmodld.Kernel, tmp_path: Path, capsys: "pytest.CaptureFixture[str]"
) -> None:
    hunt = hunter().hunt  # type: ignore[attr-defined]
    module = running.load(ko("chardev"), base=BASE)
    text, rodata, data = (module.regions[name] for name in ("text", "rodata", "data"))
    function = next(s for s in module.symbols if s.kind == "function" and s.address and s.address >= BASE)
    pointer = next(
        r.address
        for r in module.relocations
        if r.kind == "R_X86_64_64" and data.base <= r.address < data.base + data.size and r.symbol != ""
        and text.base <= int.from_bytes(module.read(r.address, 8), "little") < text.base + text.size
    )
    changes = {
        "a byte of code": (text.base + 1, bytes([module.read(text.base + 1, 1)[0] ^ 0x10]), "code"),
        "a jump at a function": (function.address, b"\xe9\0\0\0\1", None),
        "read-only data": (rodata.base + 8, bytes([module.read(rodata.base + 8, 1)[0] ^ 1]), None),
        "a pointer to a function": (pointer, (OTHER + 1).to_bytes(8, "little"), "function-pointer"),
    }
    for what, (address, data_there, kind) in changes.items():
        assert address is not None
        dump = Dump()
        dump.add(module)
        dump.add(running.load(ko("hello"), base=OTHER))
        dump.write(address, data_there)
        report = hunt(running, dump.save(tmp_path / "changed"), [ko("chardev"), ko("hello")])
        hits = [a for a in report.alarms if a.address < address + len(data_there) and a.address + a.size > address]
        assert hits, (what, report.alarms, [c for m in report.modules for c in m.changes])
        assert hits[0].module == "chardev" and hits[0].message and (kind is None or hits[0].kind == kind)
        assert hits[0].found and hits[0].found != hits[0].expected
        assert f"{hits[0].address:#x}" in capsys.readouterr().out


def test_the_hunter_finds_a_hidden_module(running: kmodld.Kernel, tmp_path: Path) -> None:
    hunt = hunter().hunt  # type: ignore[attr-defined]
    dump = Dump()
    dump.add(running.load(ko("chardev"), base=BASE))
    dump.add(running.load(ko("hello"), base=OTHER), listed=False)
    report = hunt(running, dump.save(tmp_path / "hidden"), [ko("chardev"), ko("hello")])
    hidden = [alarm for alarm in report.alarms if alarm.kind == "hidden-module"]
    assert [(alarm.module, alarm.address) for alarm in hidden] == [("hello", OTHER)]


def test_what_is_no_dump_of_this_kernel(running: kmodld.Kernel, tmp_path: Path) -> None:
    dump = Dump()
    dump.pieces[min(dump.pieces)][:16] = b"Linux version 5."
    with pytest.raises(kmodld.Error, match="no kernel is found|another kernel"):
        running.verify(dump.save(tmp_path / "other"))
    with pytest.raises(kmodld.Error):
        running.verify(tmp_path / "none")
    done = subprocess.run([sys.executable, HUNTER], capture_output=True, text=True)
    assert done.returncode == 1 and "KERNEL" in done.stderr
