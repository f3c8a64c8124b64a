"""Batches on CPU in one share a core: left alone, XLA keeps 1.4 of two cores busy with loops as small as these."""

import functools
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delf_jax.cores import usable_cores

# Fewer rows than this are not worth a thread of their own.
FEWEST_ROWS = 16

_compiled: set[Hashable] = set()
_compiling = threading.Lock()
_lapack = threading.Lock()


def in_shares(program: Callable[[Any], Any], batch: Any, *, static: Hashable) -> Any:
    """``program(batch)`` for arrays whose rows do not depend on one another, computed in threads on CPU.

    Args:
        program: a jitted function from arrays [c, ...] to arrays [c, ...], without calls of LAPACK (``jnp.linalg``):
            two of those at once can wait for each other in XLA's threads for good (jaxlib 0.10.2).
        batch: pytree of arrays. Those of JAX, traced ones too, and batches for an accelerator are not divided.
        static: what the compiled program depends on beside the shapes of ``batch``.

    Returns:
        What ``program`` returns; NumPy arrays where the batch was divided.
    """
    leaves, structure = jax.tree.flatten(batch)
    rows = len(leaves[0])
    shares = min(usable_cores(), rows // FEWEST_ROWS)
    if shares < 2 or not all(isinstance(leaf, np.ndarray) for leaf in leaves) or not _computes_now_on_cpu():
        return program(batch)
    size = -(-rows // shares)
    shares = -(-rows // size)
    # All have one size, and so one program: the last begins with rows of the one before where it would be too short.
    starts = [min(at, rows - size) for at in range(0, shares * size, size)]
    parts = [jax.tree.map(lambda x, at=at: x[at : at + size], batch) for at in starts]

    def run(part: Any) -> Any:
        return jax.device_get(program(part))

    key = (static, structure, tuple((size, *leaf.shape[1:], leaf.dtype) for leaf in leaves))
    with _compiling:  # or every thread would compile the same
        first = [] if key in _compiled else [run(parts.pop(0))]
        _compiled.add(key)
    found = [*first, *_pool().map(run, parts)]
    found[-1] = jax.tree.map(lambda x: x[shares * size - rows :], found[-1])
    return jax.tree.map(lambda *pieces: np.concatenate(pieces), *found)


def one_at_a_time(program: Callable[[Any], Any], batch: Any) -> Any:
    """``program(batch)`` for a program that calls LAPACK: on CPU no other thread is in here meanwhile."""
    if not _computes_now_on_cpu():
        return program(batch)
    with _lapack:
        return jax.block_until_ready(program(batch))


def _computes_now_on_cpu() -> bool:
    # Where a caller's function is being traced, so is this zero.
    return jax.default_backend() == "cpu" and not isinstance(jnp.zeros(()), jax.core.Tracer)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="share")
