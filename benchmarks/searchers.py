"""The methods that ``benchmarks.search`` compares: our backends and faiss's indexes, with their settings."""

import contextlib
import ctypes
import gc
import itertools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from benchmarks.errors import PeerMissing
from delf_jax.errors import SearchIndexError
from retrieval.indexing.backends import Backend, backend_class

THREADS = 2
_TRAINING = 200_000

Rows = Float[np.ndarray, "n d"]
Search = Callable[[Rows, int], Int[np.ndarray, "q k"]]


class Built(NamedTuple):
    """An index of some descriptors.

    Attributes:
        search: queries [q, d] and k -> ids int64 [q, k], at the setting that was used last.
        settings: what a search can be set to, from quick to thorough: name -> the call that sets it.
        default: the setting that users get; None where a library leaves it open.
    """

    search: Search
    settings: Mapping[str, Callable[[], object]]
    default: str | None = None


class Method(NamedTuple):
    """One way of searching.

    Attributes:
        name: as in tables and plots.
        ours: this project's, not a peer's.
        build: raises ``PeerMissing`` where its package is not installed.
    """

    name: str
    ours: bool
    build: Callable[[Rows], Built]


def methods(count: int, *, full: bool) -> list[Method]:
    """All methods for ``count`` descriptors. Those that are slow to build are left out unless wanted."""
    lists = 1 << round(math.log2(2 * math.sqrt(count)))
    fast = [f"nprobe={n},k_factor_rf={k}" for k, n in itertools.product((4, 7), _probes(lists))]
    found = [
        Method("ScaNN", True, _scann),
        Method("exact JAX", True, _exact),
        _faiss("faiss fast-scan", f"IVF{lists},PQ64x4fs,RFlat", fast),
        _faiss("faiss fast-scan fp16", f"IVF{lists},PQ64x4fs,Refine(SQfp16)", fast),
        _faiss("faiss IVF-PQ", f"IVF{lists},PQ32,RFlat", fast),
        _faiss("faiss flat", "Flat", [""]),
    ]
    if full:
        efforts = [f"efSearch={n}" for n in (80, 160, 240, 320)]
        found += [
            _faiss("faiss OPQ fast-scan", f"OPQ64_128,IVF{lists},PQ64x4fs,RFlat", fast),
            _faiss("faiss HNSW 8 bits", "HNSW32,SQ8", efforts),
        ]
    return found


def measured_build(method: Method, rows: Rows) -> tuple[Built, dict[str, Any]]:
    """Builds; seconds it took and by how many bytes a descriptor the process has grown for good."""
    before = _resident()
    begin = time.perf_counter()
    built = method.build(rows)
    seconds = time.perf_counter() - begin
    return built, {"build_s": seconds, "bytes_per_descriptor": (_resident() - before) / len(rows)}


def _scann(rows: Rows) -> Built:
    backend: Any = _backend("scann", rows)
    default = backend.parameters

    def use(parameters: Any) -> Callable[[], object]:
        return lambda: setattr(backend, "parameters", parameters)

    swept = [
        default._replace(num_leaves_to_search=math.ceil(share * default.num_leaves_to_search), reorder=reorder)
        for reorder in (2 * default.reorder // 3, default.reorder)
        for share in (0.3, 0.5, 0.7, 0.85, 1.0, 1.3, 1.8)
    ]
    return Built(
        lambda queries, k: backend.search(queries, k)[0],
        {_name(parameters): use(parameters) for parameters in swept},
        _name(default),
    )


def _exact(rows: Rows) -> Built:
    backend = _backend("exact", rows)
    return Built(lambda queries, k: backend.search(queries, k)[0], {"": lambda: None}, "")


def _backend(name: str, rows: Rows) -> Backend:
    try:
        return backend_class(name).build(rows)
    except SearchIndexError as error:
        raise PeerMissing(str(error)) from error


def _faiss(name: str, factory: str, settings: Sequence[str]) -> Method:
    def build(rows: Rows) -> Built:
        try:
            import faiss
        except ImportError as error:
            raise PeerMissing("faiss is not installed; pip install delf-jax[peers]") from error
        # More threads than cores would wait for each other by turning in circles.
        faiss.omp_set_num_threads(min(THREADS, len(os.sched_getaffinity(0))))
        index = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(rows[np.random.default_rng(0).permutation(len(rows))[:_TRAINING]])
        index.add(rows)

        parameters: Any = faiss.ParameterSpace()

        def use(setting: str) -> Callable[[], object]:
            return lambda: parameters.set_index_parameters(index, setting)

        return Built(
            lambda queries, k: index.search(queries, k)[1], {setting: use(setting) for setting in settings}, None
        )

    return Method(name, False, build)


def _name(parameters: Any) -> str:
    return ",".join(f"{name}={value}" for name, value in parameters._asdict().items())


def _probes(lists: int) -> list[int]:
    """Lists searched, from one in fifty to one in eight."""
    return [max(1, round(share * lists)) for share in (0.02, 0.03, 0.045, 0.065, 0.09, 0.125)]


def _resident() -> int:
    """Bytes of memory that the process holds, after giving back what it can."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
