"""The package does what its texts say, on the fixture modules."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import List

import pytest

import kmodld
from kmodld import _many

from conftest import FIXTURES, ko


def test_a_module_in_memory(kernel: kmodld.Kernel) -> None:
    module = kernel.load(ko("hello"))
    assert (module.name, module.stage, module.arch) == ("hello", "final", "x86_64")
    assert module.release == kernel.release and kernel.release.startswith("6.12.")
    init = module.symbol("init_module")
    assert init.address == module.init and init.kind == "function"
    text = module.regions["text"]
    assert isinstance(text.memory, memoryview) and text.memory.readonly and len(text.memory) == text.size
    assert module.read(text.base, 16) == bytes(text.memory[:16])
    with pytest.raises(IndexError):
        module.read(text.base, text.size + 1)
    with pytest.raises(KeyError):
        module.symbol("no such symbol")
    printk = next(symbol for symbol in module.imports if symbol.name == "_printk")
    assert printk.owner == "vmlinux" and printk.address == kernel.symbol("_printk")
    assert any(relocation.symbol == "_printk" for relocation in module.relocations)
    assert {patch.step for patch in module.patches} >= {"ftrace site", "ORC table sorted"}
    assert b"license=GPL" in module.section(".modinfo")
    assert {finding.code for finding in module.findings} >= {"LIC-2"}
    assert module.document()["module"] == "hello"


def test_places_and_stages(kernel: kmodld.Kernel) -> None:
    at = kernel.load(ko("hello"), base=0xFFFFFFFFC1000000, stage="relocated")
    assert at.regions["text"].base == 0xFFFFFFFFC1000000 and at.patches == []
    both = {"text": 0xFFFFFFFFC1000000, "data": 0xFFFFFFFFC1000000}
    with pytest.raises(kmodld.Error, match="overlap"):
        kernel.load(ko("hello"), regions=both)
    with pytest.raises(ValueError):
        kernel.load(ko("hello"), stage="half")


def test_a_refusal_has_errno_and_findings(kernel: kmodld.Kernel) -> None:
    with pytest.raises(kmodld.Refused) as refused:
        kernel.load(ko("importer"))
    assert refused.value.errno == errno.ENOENT and refused.value.strerror
    assert any("Unknown symbol" in line for line in refused.value.dmesg)
    assert any(finding.code == "SYM-5" for finding in refused.value.findings)
    assert kernel.check(ko("importer")).errno == "ENOENT"
    with pytest.raises(kmodld.Refused) as refused:
        kernel.load(b"no module")
    assert refused.value.errno == errno.ENOEXEC
    with pytest.raises(kmodld.Error):
        kmodld.Kernel("/no/such/kernel")


def test_what_is_not_known_is_undecided() -> None:
    kernel = kmodld.Kernel(symtab=FIXTURES / "kallsyms")
    with pytest.raises(kmodld.Undecided) as undecided:
        kernel.load(ko("hello"))
    assert undecided.value.unjudged and undecided.value.unjudged[0].needs
    assert kernel.check(ko("hello")).verdict == "undecided"


def test_insmod_and_rmmod(kernel: kmodld.Kernel) -> None:
    kernel.insmod(ko("exporter"))
    assert kernel.modules == ["exporter"]
    assert kernel.load(ko("importer")).depends == ["exporter"]
    kernel.insmod(ko("importer"))
    with pytest.raises(kmodld.Refused) as refused:
        kernel.rmmod("exporter")
    assert refused.value.errno == errno.EWOULDBLOCK
    kernel.rmmod("importer")
    kernel.rmmod("exporter")
    assert kernel.load_needed(ko("importer")) == [ko("exporter")]


def test_compare(kernel: kmodld.Kernel) -> None:
    module = kernel.load(ko("hello"), choices=True)
    text = module.regions["text"]
    assert module.compare(text.base, text.memory) == []
    changed = bytearray(text.memory)
    changed[:2] = b"\xeb\xfe"
    differences = module.compare(text.base, changed)
    assert differences and all(not difference.is_sound for difference in differences)
    assert differences[0].address == text.base and differences[0].symbol
    with pytest.raises(kmodld.Error):
        module.compare(0, b"x")


def test_files_and_maps(kernel: kmodld.Kernel, tmp_path: Path) -> None:
    module = kernel.load(ko("hello"))
    elf = module.to_elf(tmp_path / "hello.elf")
    assert elf.startswith(b"\x7fELF") and (tmp_path / "hello.elf").read_bytes() == elf
    html = module._repr_html_()
    assert ".text" in html and f"{module.regions['text'].base:#018x}" in html and html.count("<tr>") > 3


def test_loads_leave_the_lock_of_the_interpreter(kernel: kmodld.Kernel) -> None:
    file = ko("relocs").read_bytes()
    loaded: List[str] = []
    threads = [threading.Thread(target=lambda: loaded.append(kernel.check(file).verdict)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [kernel.check(file).verdict] * 8


def lines(verdicts: List[kmodld.Verdict]) -> List[tuple]:  # type: ignore[type-arg]
    return [(verdict.file, verdict.verdict, verdict.errno) for verdict in verdicts]


def test_many_modules_on_every_engine(spec: Path) -> None:
    threads = list(kmodld.check_many([FIXTURES], [spec]))
    assert len(threads) == len(list(FIXTURES.glob("*.ko")))
    verdicts = {Path(verdict.file or "").stem: verdict for verdict in threads}
    assert verdicts["importer"].loads, "after exporter, which is in the set"
    assert verdicts["ns_forgot"].errno == "EINVAL"
    processes = list(kmodld.check_many([FIXTURES], [spec, spec], engine="processes", workers=2, chunk=5))
    assert lines(processes) == lines(threads) * 2
    unreadable, *rest = kmodld.check_many(["/no/such/file.ko", FIXTURES], [spec])
    assert unreadable.verdict == "unreadable" and unreadable.error and len(rest) == len(threads)
    with pytest.raises(ValueError):
        list(kmodld.check_many([FIXTURES], [spec], engine="magic"))


def test_dask_with_a_worker_killed(spec: Path) -> None:
    distributed = pytest.importorskip("distributed")
    expected = lines(list(kmodld.check_many([FIXTURES], [spec])))
    cluster = distributed.LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        verdicts = kmodld.check_many([FIXTURES], [spec] * 20, engine="dask", client=client, chunk=2)
        first = next(verdicts)
        victim = next(iter(client.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        assert lines([first, *verdicts]) == expected * 20, "every result, once"


def children() -> List[int]:
    """The processes that this one has started."""
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def test_a_pool_with_a_process_killed(spec: Path) -> None:
    expected = lines(list(kmodld.check_many([FIXTURES], [spec])))
    before = set(children())
    verdicts = kmodld.check_many([FIXTURES], [spec] * 20, engine="processes", workers=3, chunk=2)
    first = next(verdicts)
    victim = next(pid for pid in children() if pid not in before)
    os.kill(victim, signal.SIGKILL)
    assert lines([first, *verdicts]) == expected * 20, "every result, once"


def test_files_that_kill_their_process_are_named(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if multiprocessing.get_start_method() != "fork":
        pytest.skip("other processes do not see what is patched here")
    count = len(list(FIXTURES.glob("*.ko")))
    judge = _many._judge

    def deadly(spec: bytes, paths: List[str], start: int, end: int) -> List[str]:
        if start == count // 2:
            os._exit(1)
        return judge(spec, paths, start, end)

    monkeypatch.setattr(_many, "_judge", deadly)
    verdicts = kmodld.check_many([FIXTURES], [spec], engine="processes", workers=3, chunk=1)
    seen = []
    with pytest.raises(kmodld.Error, match="processes died over ") as error:
        for verdict in verdicts:
            seen.append(verdict.file or "")
    assert len(seen) == count // 2 and not any(file in str(error.value) for file in seen)


def test_ray_with_a_worker_killed(spec: Path) -> None:
    ray = pytest.importorskip("ray")
    expected = lines(list(kmodld.check_many([FIXTURES], [spec])))
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        pids = ray.get([ray.remote(lambda: os.getpid()).remote() for _ in range(3)])
        verdicts = kmodld.check_many([FIXTURES], [spec] * 20, engine="ray", chunk=2)
        first = next(verdicts)
        os.kill(pids[0], signal.SIGKILL)
        assert lines([first, *verdicts]) == expected * 20, "every result, once"
    finally:
        ray.shutdown()


def test_types_are_checked() -> None:
    pytest.importorskip("mypy")
    package = Path(kmodld.__file__).parent
    assert (package / "py.typed").exists()
    program = 'import kmodld\nfor v in kmodld.check_many(["a"], ["b"]):\n    n: int = v.verdict\n'
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "-c", program], capture_output=True, text=True, cwd="/"
    )
    assert 'expression has type "str", variable has type "int"' in result.stdout, result.stdout
    assert result.stdout.count("error:") == 1, result.stdout
