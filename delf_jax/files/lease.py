"""One writer at a time in a folder, also across computers, and without waiting for the dead."""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

from delf_jax.errors import StoreError
from delf_jax.files import json_files
from delf_jax.files.folder import Folder

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: the heartbeat alone
    fcntl = None

FILE = "lease.json"
_LOCK = ".lease.lock"
_log = logging.getLogger(__name__)


class Lease:
    """The right to write in a folder, kept fresh by a thread until it is released.

    Writers on one computer exclude each other by a lock that the kernel drops when its process dies. Where there are no
    locks, as in object stores, or the writer is elsewhere, ``lease.json`` tells which process holds the folder, and a
    time that is renewed four times in ``seconds``. A process of this computer is looked for. For another one this
    waits, until it gives its lease back, renews it, or has not renewed it for ``seconds`` and so is dead. A lease that
    old is over even where its process lives on: it could not be given back.

    Raises:
        StoreError: when another writer, which is alive, holds the folder.
    """

    def __init__(self, folder: Folder, *, seconds: float = 60.0) -> None:
        self._folder = folder
        self._seconds = seconds
        self._owner = uuid.uuid4().hex
        self._released = threading.Event()
        self._lock = self._lock_here()
        try:
            self._await_others()
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
        try:
            held = self._read()
            if held is not None and held["owner"] == self._owner:
                self._folder.remove(FILE)
        finally:
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
            os.close(lock)
            return None
        return lock

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _await_others(self) -> None:
        held = first = self._read()
        if first is None or self._is_over(first):
            return
        if not _is_alive(first):
            left = min(self._seconds, first["time"] + self._seconds - time.time())
            left = max(left, self._seconds / 2)  # two renewals, also of a writer whose clock is behind
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
            writer = f"process {first['process']} on {first['host']}"
            told = {"folder": self._folder.address, "writer": writer, "until": until}
            _log.warning("waiting to see whether another writer is alive", extra=told)
            end = time.monotonic() + left
            while held == first and time.monotonic() < end:
                time.sleep(min(1.0, self._seconds / 16))
                held = self._read()
            if held is None or held == first:
                return
        raise self._in_use(held)

    def _is_over(self, held: dict[str, Any]) -> bool:
        if self._lock is not None and held["computer"] == _computer():
            return True
        return _is_alive(held) is False or abs(time.time() - held["time"]) >= self._seconds

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
            **_process(),
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
            held = json_files.loads_object(self._folder.read(FILE))
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


def _process() -> dict[str, Any]:
    """This process, so that others on this computer can tell whether it is alive."""
    process = os.getpid()
    return {"process": process, "started": _started(process), "namespace": _namespace()}


def _namespace() -> str | None:
    """Within which process numbers mean the same; None where the system does not say."""
    try:
        return f"{_computer()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(process: int) -> int | None:
    """When a process was started, in the system's ticks; 0 where it has ended, None where it cannot be seen."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        return 0 if state in "ZX" else int(fields[18])
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(held: dict[str, Any]) -> bool | None:
    """Whether the process that holds a lease is alive; None where it cannot be known from here."""
    process, started = held["process"], held.get("started")
    same = held["host"] == socket.gethostname() and held.get("namespace") == _namespace() is not None
    if not same or started is None or type(process) is not int or not 0 < process < 1 << 31:
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    found = _started(process)
    return None if found is None else found == started
