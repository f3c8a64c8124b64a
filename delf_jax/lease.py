"""One writer at a time in a folder, also across computers, and without waiting for the dead."""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

from delf_jax import strict_json
from delf_jax.errors import StoreError
from delf_jax.folder import Folder

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: the heartbeat alone
    fcntl = None

FILE = "lease.json"
_LOCK = ".lease.lock"


class Lease:
    """The right to write in a folder, kept fresh by a thread until it is released.

    Writers on one computer exclude each other by a lock that the kernel drops when its process dies. Writers elsewhere
    see ``lease.json``, whose time is renewed four times in ``seconds``; one that was not renewed for longer is dead.

    Raises:
        StoreError: when another writer holds the folder.
    """

    def __init__(self, folder: Folder, *, seconds: float = 60.0) -> None:
        self._folder = folder
        self._seconds = seconds
        self._owner = uuid.uuid4().hex
        self._released = threading.Event()
        self._lock = self._lock_here()
        try:
            self._refuse_others()
            self._renew()
        except BaseException:
            self._unlock()
            raise
        self._thread = threading.Thread(target=self._keep_fresh, name="store lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises StoreError when another writer has taken the folder over, for example after this one was suspended."""
        held = self._read()
        if held is None or held["owner"] != self._owner:
            raise StoreError(
                f"{self._folder.address}: another writer took it over while this one stood still; "
                "give the same command again when that one has ended"
            )

    def release(self) -> None:
        """Lets the next writer in; harmless when done twice."""
        if self._released.is_set():
            return
        self._released.set()
        self._thread.join()
        held = self._read()
        if held is not None and held["owner"] == self._owner:
            self._folder.remove(FILE)
        self._unlock()

    def _lock_here(self) -> int | None:
        if self._folder.path is None or fcntl is None:
            return None
        try:
            lock = os.open(self._folder.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(
                f"{self._folder.address}: cannot be written ({error.strerror}); "
                "change its permissions, free some space or choose another place"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise self._in_use(self._read()) from None
        except OSError:  # a network disk without locks: the heartbeat alone
            pass
        return lock

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _refuse_others(self) -> None:
        held = self._read()
        if held is None or (self._lock is not None and held["computer"] == _computer()):
            return
        if abs(time.time() - held["time"]) < self._seconds:
            raise self._in_use(held)

    def _in_use(self, held: dict[str, Any] | None) -> StoreError:
        who = f" (process {held['process']} on {held['host']})" if held else ""
        return StoreError(
            f"{self._folder.address}: another writer is at work in it{who}; wait until it has ended "
            f"(one that died elsewhere is forgotten after {self._seconds:g} s)"
        )

    def _renew(self) -> None:
        content = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "computer": _computer(),
            "process": os.getpid(),
            "time": time.time(),
        }
        self._folder.write(FILE, json.dumps(content).encode())

    def _keep_fresh(self) -> None:
        while not self._released.wait(self._seconds / 4):
            # A lease that cannot be renewed now (full disk, lost connection) grows old; check() tells when it is lost.
            with contextlib.suppress(StoreError, OSError):
                held = self._read()
                if held is not None and held["owner"] != self._owner:
                    return
                self._renew()

    def _read(self) -> dict[str, Any] | None:
        try:
            held = strict_json.loads_object(self._folder.read(FILE))
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise StoreError(
                f"{self._folder.address}: its {FILE} cannot be read ({error}); "
                "check the disk or the connection and give the command again"
            ) from None
        known = {"owner", "host", "computer", "process", "time"} <= held.keys()
        return held if known and isinstance(held["time"], (int, float)) else None


def _computer() -> str:
    """The same for all processes that share a kernel, whose locks exclude each other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
