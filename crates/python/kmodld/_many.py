"""Many modules on many kernels."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from . import _native, _types
from ._model import AnyPath

_kernels: Dict[bytes, _native.Kernel] = {}
"""The kernels of this process, each made once."""


def _judge(spec: bytes, paths: List[str], start: int, end: int) -> List[str]:
    kernel = _kernels.get(spec)
    if kernel is None:
        kernel = _native.Kernel(None, spec, None, None, None, None, "", [], False)
        _kernels[spec] = kernel
    return kernel.check_set(list(paths), start, end, 1)


def _judge_shipped(number: int, paths: List[str], start: int, end: int) -> List[str]:
    return _judge(_specs[number], paths, start, end)


_specs: List[bytes] = []


def _ship(specs: List[bytes]) -> None:
    """What a process of a pool begins with."""
    _specs[:] = specs


def _parts(count: int, chunk: int) -> List[Tuple[int, int]]:
    return [(start, min(start + chunk, count)) for start in range(0, count, chunk)]


def check_many(
    paths: Sequence[AnyPath],
    kernels: Sequence[AnyPath],
    *,
    engine: str = "threads",
    workers: Optional[int] = None,
    chunk: int = 128,
    client: Any = None,
) -> Iterator[_types.Verdict]:
    """The verdict on every module of these files and folders on every kernel (images, SPECs or trees).

    All files are one set: a module loads after those of the set that it needs. Verdicts come kernel by kernel, in the order of
    the files; files that cannot be read come first, as ``unreadable``. ``engine``:

    - ``threads``: in this process, without the interpreter's lock;
    - ``processes``: on a pool of ``workers`` processes, each of which makes each kernel once;
    - ``dask``: on the workers of a ``dask.distributed`` cluster, that of ``client`` or a local one, which must see the same files.
      Each kernel is shipped once to each worker, as a SPEC. What a lost worker had to do is done by another.
    """
    if engine not in ("threads", "processes", "dask"):
        raise ValueError(f"engine {engine!r}: threads, processes or dask")
    found, unreadable = _native.files(list(paths))
    files = [os.fspath(path) for path in found]
    for line in unreadable:
        yield _types.verdict(line)
    count = workers or os.cpu_count() or 1
    if engine == "threads":
        for image in kernels:
            kernel = _native.Kernel(image, None, None, None, None, None, "", [], False)
            for line in kernel.check_set(list(files), 0, len(files), count):
                yield _types.verdict(line)
        return
    specs = [_native.spec(kernel) for kernel in kernels]
    parts = _parts(len(files), chunk)
    if engine == "processes":
        with ProcessPoolExecutor(count, initializer=_ship, initargs=(specs,)) as pool:
            jobs = [
                pool.submit(_judge_shipped, number, files, start, end)
                for number in range(len(specs))
                for start, end in parts
            ]
            for job in jobs:
                for line in job.result():
                    yield _types.verdict(line)
    else:
        yield from _on_dask(specs, files, parts, count, client)


def _on_dask(
    specs: List[bytes], files: List[str], parts: List[Tuple[int, int]], workers: int, client: Any
) -> Iterator[_types.Verdict]:
    from distributed import Client, LocalCluster  # type: ignore[import-not-found, import-untyped, no-untyped-call, unused-ignore]

    own = None
    if client is None:
        own = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)  # type: ignore[no-untyped-call, unused-ignore]
        client = Client(own)  # type: ignore[no-untyped-call, unused-ignore]
    try:
        shipped = client.scatter(specs, broadcast=True)
        paths = client.scatter([files], broadcast=True)[0]
        jobs = [
            client.submit(_judge, spec, paths, start, end, pure=False)
            for spec in shipped
            for start, end in parts
        ]
        for job in jobs:
            for line in job.result():
                yield _types.verdict(line)
    finally:
        if own is not None:
            client.close()
            own.close()
