"""Sets up the process of the command: quiet libraries, fast memory, and the compilation cache of JAX on disk."""

import ctypes
import functools
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from delf_jax.cache import programs_folder

# Small size buckets compile in a fraction of a second each, but there are about a dozen of them.
_SMALLEST_COMPILE_SECONDS = 0.1

# Parameters of mallopt(3). M_MMAP_MAX = 0: take no block directly from the system. M_TRIM_THRESHOLD = -1: give nothing
# back to the system. M_ARENA_MAX = 1: use one heap, because the others have no room for large blocks.
_MALLOC = {-4: 0, -1: -1, -8: 1}

# Bytes: free memory is kept while the process holds less than this, or has grown by less than that since it gave back.
_MOST_RESIDENT = 2 << 30
_GROWTH = 1 << 28
_SECONDS_BETWEEN_LOOKS = 0.2


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
    of a photo (``benchmarks/NOTES.md``). A process that holds more than 2 GB gives free memory back all the same. The
    setting holds for the whole process, so only the command uses it, not the library. It does nothing if one of
    malloc's environment variables is set, even if empty (``GLIBC_TUNABLES=``).
    """
    if any(name.startswith(("GLIBC_TUNABLES", "MALLOC_")) for name in os.environ):
        return
    mallopt = _of_c_library("mallopt")
    if mallopt is not None:
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)
        _bound_kept_memory()


@functools.cache
def _bound_kept_memory() -> None:
    """Starts the thread that lets malloc give back free memory when the process holds much.

    Photos of many sizes leave holes that no later block fits, so without a bound a long job would hold several times
    what its photos need.
    """
    malloc_trim = _of_c_library("malloc_trim")

    def watch() -> None:
        bound = _MOST_RESIDENT
        while True:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            if (resident := _resident()) > bound:
                malloc_trim(0)
                resident = _resident()
                bound = resident + _GROWTH
            bound = max(_MOST_RESIDENT, min(bound, resident + _GROWTH))

    if malloc_trim is not None:
        threading.Thread(target=watch, name="kept memory", daemon=True).start()


def _resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _of_c_library(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def start_jax() -> Path | None:
    """Imports JAX and turns on its persistent compilation cache; returns the folder, None if there is no cache.

    If ``JAX_COMPILATION_CACHE_DIR`` is set, it names the folder (empty: no cache). If the folder cannot be written,
    there is no cache: programs are then compiled again in every run.
    """
    import jax

    from delf_cli import compile_notes

    if (given := os.environ.get("JAX_COMPILATION_CACHE_DIR")) is not None:
        if not given:
            return None
        compile_notes.listen(Path(given))
        return Path(given)
    folder = programs_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SMALLEST_COMPILE_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    compile_notes.listen(folder)
    return folder
