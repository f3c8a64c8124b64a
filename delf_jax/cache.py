"""Where this project keeps, between runs, what can be had again: downloads, imported models, compiled programs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$DELF_JAX_CACHE``, or ``delf-jax`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if own := os.environ.get("DELF_JAX_CACHE"):
        return Path(own).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root) / "delf-jax"


def downloads_folder() -> Path:
    """The files that `delf-jax weights fetch` gets."""
    return cache_folder() / "downloads"


def models_folder() -> Path:
    """The model folders that `delf-jax weights import` makes; their names are names for ``delf_jax.load``."""
    return cache_folder() / "models"
