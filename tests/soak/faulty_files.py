"""An object store, kept in a folder, that fails as often as it is told to."""

import random
import time
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from delf_jax.files import atomic


class FaultyFiles(LocalFileSystem):
    """faulty:///folder: some calls fail before they do anything, some after they did it, and all take their time."""

    protocol = "faulty"
    cachable = False
    share = 0.0
    seconds = 0.0
    rng = random.Random(0)

    @classmethod
    def install(cls, *, share: float, seed: int, seconds: float) -> None:
        """Makes the address known in this process, and says how often calls fail and how long each takes."""
        cls.share, cls.seconds, cls.rng = share, seconds, random.Random(seed)
        fsspec.register_implementation(cls.protocol, cls, clobber=True)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, str) and path.startswith("faulty://"):
            path = path.removeprefix("faulty://")
        return super()._strip_protocol(path)

    def _called(self) -> None:
        time.sleep(self.seconds)
        if self.rng.random() < self.share:
            raise self.rng.choice((OSError("503 Slow Down"), TimeoutError("timed out"), ConnectionError("reset")))

    def _open(self, *args: Any, **kwargs: Any) -> Any:
        self._called()
        return super()._open(*args, **kwargs)

    def ls(self, *args: Any, **kwargs: Any) -> Any:
        """Lists, or fails."""
        self._called()
        return super().ls(*args, **kwargs)

    def rm_file(self, path: str) -> None:
        """Removes, or fails."""
        self._called()
        super().rm_file(path)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """One PUT: whole or not at all, though one that fails may have been done. It may be conditional."""
        self._called()
        place = Path(self._strip_protocol(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        (atomic.create_bytes if mode == "create" else atomic.write_bytes)(place, value)
        self._called()
