"""Hides what native code writes to stderr by itself."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def native_log_hidden() -> Iterator[None]:
    """Hides what is written to file descriptor 2 while the block runs. For libraries without a setting for it."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
