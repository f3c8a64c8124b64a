"""Folders for files that can be made again at any time: downloads, imported models, compiled programs."""

import functools
import hashlib
import os
import platform
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


def programs_folder() -> Path:
    """Where the command keeps compiled programs: one folder for each type of processor, as none runs the others'."""
    return cache_folder() / "jax" / processor_type()


@functools.cache
def processor_type() -> str:
    """A name for the instructions that this processor has, such as ``x86_64-5d41402abc4b``."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        described = [platform.processor()]
    else:
        described = [line for line in lines if line.split("\t")[0].strip(" :") in _OF_PROCESSOR]
    return f"{platform.machine()}-{hashlib.sha256(repr(described).encode()).hexdigest()[:12]}"


# What Linux says of a processor of x86, and of ARM.
_OF_PROCESSOR = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "CPU variant", "Features")
