"""What a process of the command sets up around JAX: quiet logs, and programs compiled once and kept on disk."""

import ctypes
import os
import sys
import warnings

from delf_jax.cache import cache_folder

# Programs of small buckets compile in a fraction of a second each, and there are about a dozen of them.
_SMALLEST_COMPILE_SECONDS = 0.1

# Parameters of mallopt(3): M_MMAP_MAX, no block of its own from the system; M_TRIM_THRESHOLD, nothing back to it;
# M_ARENA_MAX, one heap, as the other ones have no room for large blocks.
_MALLOC = {-4: 0, -1: -1, -8: 1}


def quiet() -> None:
    """Keeps the C++ logs of XLA and friends off stderr, unless the user asked for them. Before JAX is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # What Pillow thinks of a damaged photo's metadata matters to nobody; that a photo is damaged is told.
    warnings.filterwarnings("ignore", module="PIL")


def quiet_absl() -> None:
    """Keeps off stderr what Orbax says of a slow disk, and of errors that it raises too, and TFDS of others' sets."""
    from absl import logging

    logging.set_verbosity(logging.FATAL)


def keep_memory() -> None:
    """Makes glibc's malloc keep the memory that it was given back, for the next photo. Call it early.

    XLA's programs on CPU take hundreds of megabytes anew at every call. Left alone, malloc takes blocks as large as
    these from the system and returns them, and the system clears every page each time: a tenth of the time of a photo
    (``benchmarks/NOTES.md``). It holds for the whole process, so the library does not call it. Whoever sets one of
    malloc's variables, even to nothing (``GLIBC_TUNABLES=``), has malloc as it is.
    """
    if any(name.startswith(("GLIBC_TUNABLES", "MALLOC_")) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


def start_jax() -> None:
    """Imports JAX with the persistent compilation cache on.

    ``JAX_COMPILATION_CACHE_DIR`` decides where it is set (empty: no cache). A folder that cannot be written means no
    cache, not a failure: only time is lost.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = cache_folder() / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SMALLEST_COMPILE_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
