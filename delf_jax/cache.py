"""Folders for files that can be made again at any time: downloads, imported models, compiled programs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$DELF_JAX_CACHE`` if it is set; otherwise ``delf-jax`` in ``$XDG_CACHE_HOME`` or in ``~/.cache``."""
    if own := os.environ.get("DELF_JAX_CACHE"):
        return Path(own).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root) / "delf-jax"


def downloads_folder() -> Path:
    """Where `delf-jax weights fetch` puts the files that it downloads."""
    return cache_folder() / "downloads"


def models_folder() -> Path:
    """Where `delf-jax weights import` puts model folders; ``delf_jax.load`` takes the name of each."""
    return cache_folder() / "models"
