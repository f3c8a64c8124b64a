"""What a process of the command sets up around JAX: quiet logs, and programs compiled once and kept on disk."""

import contextlib
import os
import sys
import warnings
from pathlib import Path

from delf_jax.cache import cache_folder

# Programs of small buckets compile in a fraction of a second each, and there are about a dozen of them.
_SMALLEST_COMPILE_SECONDS = 0.1


_LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_large_pages() -> None:
    """Starts this process over with a malloc that asks Linux for large pages, where Linux gives them to who asks.

    XLA's programs on CPU take their memory anew at every call, hundreds of megabytes; in pages of 4 kB that is a tenth
    of the time of a photo (``benchmarks/NOTES.md``). glibc (2.35 and later) reads its tunables only when a process
    begins. The process keeps its number, arguments, environment and files; processes it starts inherit the setting.
    Nothing happens where ``GLIBC_TUNABLES`` is set already, by its user or by the start before.
    """
    if "GLIBC_TUNABLES" in os.environ or not sys.executable:
        return
    with contextlib.suppress(OSError):
        if "[madvise]" in _LARGE_PAGES.read_text():
            os.execve(
                sys.executable,
                [sys.executable, *sys.orig_argv[1:]],
                os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
            )


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
