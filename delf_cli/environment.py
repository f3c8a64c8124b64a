"""Sets up the process of the command: quiet libraries, fast memory, and the compilation cache of JAX on disk."""

import ctypes
import os
import sys
import warnings

from delf_jax.cache import cache_folder

# Small size buckets compile in a fraction of a second each, but there are about a dozen of them.
_SMALLEST_COMPILE_SECONDS = 0.1

# Parameters of mallopt(3). M_MMAP_MAX = 0: take no block directly from the system. M_TRIM_THRESHOLD = -1: give nothing
# back to the system. M_ARENA_MAX = 1: use one heap, because the others have no room for large blocks.
_MALLOC = {-4: 0, -1: -1, -8: 1}


def quiet_libraries() -> None:
    """Turns off the C++ logs of XLA and gRPC, unless the user asked for them. Call it before JAX is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Pillow warns about damaged metadata. The command itself reports photos that are damaged.
    warnings.filterwarnings("ignore", module="PIL")


def quiet_absl() -> None:
    """Turns off the log of Orbax and TFDS, which repeats errors and warns about slow disks."""
    from absl import logging

    logging.set_verbosity(logging.FATAL)


def keep_memory() -> None:
    """Makes glibc's malloc keep freed memory for the next photo. Call it early.

    On the CPU, a program of XLA allocates hundreds of megabytes at every call. By default malloc takes such large
    blocks from the system and returns them, and the system clears every page each time. This costs a tenth of the time
    of a photo (``benchmarks/NOTES.md``). The setting holds for the whole process, so only the command uses it, not the
    library. It does nothing if one of malloc's environment variables is set, even if empty (``GLIBC_TUNABLES=``).
    """
    if any(name.startswith(("GLIBC_TUNABLES", "MALLOC_")) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


def start_jax() -> None:
    """Imports JAX and turns on its persistent compilation cache.

    If ``JAX_COMPILATION_CACHE_DIR`` is set, it names the folder (empty: no cache). If the folder cannot be written,
    there is no cache: programs are then compiled again in every run.
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
