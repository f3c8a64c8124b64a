"""Work divided among the cores of a CPU: by itself, XLA keeps only 1.4 of two cores busy with loops this small."""

import functools
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delf_jax.cores import usable_cores

# Rows of a thread, at least: fewer are not worth it.
FEWEST_ROWS = 16

_compiled: set[Hashable] = set()
_compiling = threading.Lock()
_lapack = threading.Lock()


def map_rows_in_threads(program: Callable[[Any], Any], batch: Any, *, static: Hashable) -> Any:
    """Computes ``program(batch)`` on a CPU in one thread a core, each with its share of the rows.

    Args:
        program: a jitted function from arrays [c, ...] to arrays [c, ...] whose rows do not depend on one another. It
            must not call LAPACK (``jnp.linalg``): two such programs at once can deadlock in XLA's threads (jaxlib
            0.10.2); see ``with_lapack_lock``.
        batch: pytree of arrays [c, ...]. It is divided only if all are NumPy arrays and JAX computes on a CPU.
        static: what the compiled program depends on beside the shapes of ``batch``.

    Returns:
        What ``program`` returns; NumPy arrays if the batch was divided.
    """
    leaves, structure = jax.tree.flatten(batch)
    rows = len(leaves[0])
    shares = min(usable_cores(), rows // FEWEST_ROWS)
    if shares < 2 or not all(isinstance(leaf, np.ndarray) for leaf in leaves) or not _computes_now_on_cpu():
        return program(batch)
    size = -(-rows // shares)
    shares = -(-rows // size)
    # All parts have one size, and so one compiled program. The last part would be too short, so it begins with rows of
    # the part before.
    starts = [min(at, rows - size) for at in range(0, shares * size, size)]
    parts = [jax.tree.map(lambda x, at=at: x[at : at + size], batch) for at in starts]

    def run(part: Any) -> Any:
        return jax.device_get(program(part))

    key = (static, structure, tuple((size, *leaf.shape[1:], leaf.dtype) for leaf in leaves))
    with _compiling:  # otherwise every thread would compile the same program
        first = [] if key in _compiled else [run(parts.pop(0))]
        _compiled.add(key)
    found = [*first, *_pool().map(run, parts)]
    found[-1] = jax.tree.map(lambda x: x[shares * size - rows :], found[-1])
    return jax.tree.map(lambda *pieces: np.concatenate(pieces), *found)


def with_lapack_lock(program: Callable[[Any], Any], batch: Any) -> Any:
    """Computes ``program(batch)`` for a program that calls LAPACK; on a CPU, one such program at a time."""
    if not _computes_now_on_cpu():
        return program(batch)
    with _lapack:
        return jax.block_until_ready(program(batch))


def _computes_now_on_cpu() -> bool:
    # While a function is being traced, this zero is a tracer too.
    return jax.default_backend() == "cpu" and not isinstance(jnp.zeros(()), jax.core.Tracer)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="rows")
