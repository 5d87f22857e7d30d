"""Many modules on many kernels."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from . import _errors, _native, _types
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
      Each kernel is shipped once to each worker, as a SPEC;
    - ``ray``: the same on a Ray cluster: the one that ``ray.init`` was told of, else a local one with ``workers`` processors.

    What a lost worker had to do is done by another: each verdict comes once. A part of ``chunk`` files over which processes die again
    and again is an error that names it.
    """
    if engine not in ("threads", "processes", "dask", "ray"):
        raise ValueError(f"engine {engine!r}: threads, processes, dask or ray")
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
        lines = _on_processes(specs, files, parts, count)
    elif engine == "dask":
        lines = _on_dask(specs, files, parts, count, client)
    else:
        lines = _on_ray(specs, files, parts, count)
    for line in lines:
        yield _types.verdict(line)


_TRIES = 3
"""So often the process that has one part alone may die."""


def _on_processes(
    specs: List[bytes], files: List[str], parts: List[Tuple[int, int]], workers: int
) -> Iterator[str]:
    waiting = [(number, start, end) for number in range(len(specs)) for start, end in parts]
    deaths = 0
    while waiting:
        # A pool breaks when one of its processes dies, and does not say over which part: the next one is done alone.
        count, batch = (1, waiting[:1]) if deaths else (workers, list(waiting))
        pool = ProcessPoolExecutor(count, initializer=_ship, initargs=(specs,))
        try:
            jobs = [pool.submit(_judge_shipped, number, files, start, end) for number, start, end in batch]
            for job in jobs:
                lines = job.result()
                del waiting[0]
                yield from lines
            deaths = 0
        except BrokenProcessPool as why:
            deaths = deaths + 1 if len(batch) == 1 else 1
            if deaths > _TRIES:
                _, start, end = batch[0]
                raise _errors.Error(f"{_TRIES} processes died over {', '.join(files[start:end])}") from why
        finally:
            pool.shutdown(cancel_futures=True)


def _on_dask(
    specs: List[bytes], files: List[str], parts: List[Tuple[int, int]], workers: int, client: Any
) -> Iterator[str]:
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
            yield from job.result()
    finally:
        if own is not None:
            client.close()
            own.close()


def _on_ray(specs: List[bytes], files: List[str], parts: List[Tuple[int, int]], workers: int) -> Iterator[str]:
    import ray  # type: ignore[import-not-found, import-untyped, unused-ignore]

    is_own = not ray.is_initialized()
    if is_own:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        judge = ray.remote(_judge).options(max_retries=_TRIES)
        shipped = [ray.put(spec) for spec in specs]
        paths = ray.put(files)
        for job in [judge.remote(spec, paths, start, end) for spec in shipped for start, end in parts]:
            yield from ray.get(job)
    finally:
        if is_own:
            ray.shutdown()
