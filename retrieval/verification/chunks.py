"""Batches of any length computed by one program: in chunks of one size, on a CPU in one thread a core.

By itself, XLA keeps only 1.4 of two cores busy with loops as small as those of RANSAC.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from delf_jax.cores import usable_cores

# Rows of a thread, at least: fewer are not worth it.
FEWEST_ROWS = 8

_compiled: set[Hashable] = set()
_compiling = threading.Lock()
_lapack = threading.Lock()


def map_chunks(
    program: Callable[[Any, Any], Any], batch: Any, *, rows: int, static: Hashable = (), uses_lapack: bool = False
) -> Any:
    """Computes ``program`` over the rows of a batch; not for use inside of ``jit``.

    Args:
        program: a jitted function (arrays [c, ...], how many of the first rows count) -> arrays [c, ...], whose rows do
            not depend on one another. It should spend no time on the rows that do not count.
        batch: pytree of NumPy arrays [c, ...].
        rows: length of a chunk.
        static: what the compiled program depends on beside the shapes of ``batch``.
        uses_lapack: whether ``program`` calls LAPACK (``jnp.linalg``). Two such programs at once can deadlock in XLA's
            threads on a CPU (jaxlib 0.10.2), so one waits for the other.

    Returns:
        What ``program`` returns, in NumPy.
    """
    leaves, structure = jax.tree.flatten(batch)
    count = len(leaves[0])
    is_cpu = jax.default_backend() == "cpu"
    threads = usable_cores() if is_cpu and not uses_lapack else 1
    size = -(-count // max(-(-count // rows), min(threads, count // FEWEST_ROWS)))
    parts = [jax.tree.map(lambda x, at=at: x[at : at + size], batch) for at in range(0, count, size)]
    lock = _lapack if is_cpu and uses_lapack else contextlib.nullcontext()

    def run(part: Any) -> Any:
        count = len(jax.tree.leaves(part)[0])
        with lock:
            found = jax.device_get(program(jax.tree.map(lambda x: _lengthened(x, rows), part), np.int32(count)))
        return jax.tree.map(lambda x: x[:count], found)

    key = (static, rows, structure, tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves))
    with _compiling:  # otherwise every thread would compile the same program
        first = [] if key in _compiled else [run(parts.pop(0))]
        _compiled.add(key)
    found = [*first, *(_pool().map(run, parts) if threads > 1 and len(parts) > 1 else map(run, parts))]
    return jax.tree.map(lambda *pieces: np.concatenate(pieces), *found)


def _lengthened(values: np.ndarray, rows: int) -> np.ndarray:
    if len(values) == rows:
        return values
    padded = np.zeros((rows, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="rows")
