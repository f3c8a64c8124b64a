"""What a process of the command sets up around JAX: quiet logs, and programs compiled once and kept on disk."""

import os
import warnings

from delf_jax.cache import cache_folder

# Programs of small buckets compile in a fraction of a second each, and there are about a dozen of them.
_SMALLEST_COMPILE_SECONDS = 0.1


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
