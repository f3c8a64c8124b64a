"""Lets one writer at a time into a folder, also across computers, without waiting for dead ones."""

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

from delf_jax.errors import StoreError, reason_of
from delf_jax.files import json_files
from delf_jax.files.folder import Folder

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: lease.json alone has to do
    fcntl = None

FILE = "lease.json"
_LOCK = ".lease.lock"
_log = logging.getLogger(__name__)


class Lease:
    """The right to write in a folder. A thread renews it until it is released.

    Writers on one computer exclude each other with a file lock, which the kernel drops when a process dies. Object
    stores have no such locks, and other computers may not see them. So ``lease.json`` names the process that holds the
    folder, and has a time that it renews four times in ``seconds``. If that process was on this computer, the system
    says whether it is alive. If not, this waits: until the process releases its lease; until it renews it, which means
    that it is alive; or until ``seconds`` have passed, which means that it is dead. A lease that old is over in any
    case, also if its process is alive and could not release it.

    A lease is not a fence: a process that was suspended may still believe that it has one. The numbers of the commits
    are the fence (``store.commit_log``).

    Args:
        folder: of the lease.
        seconds: how long it lasts if it is not renewed.
        holds: what the lease is for, if that is not the folder. Then the folder is made for the lease alone, and is
            removed with it.

    Raises:
        StoreError: another writer, which is alive, holds the folder.
    """

    def __init__(self, folder: Folder, *, seconds: float = 60.0, holds: str | os.PathLike[str] | None = None) -> None:
        self._folder = folder
        self._seconds = seconds
        self._is_passing = holds is not None
        self._name = folder.address if holds is None else os.fspath(holds)
        self._owner = uuid.uuid4().hex
        self._released = threading.Event()
        self._lock = self._lock_here()
        try:
            self._wait_for_holder()
            self._renew()
        except BaseException:
            self._unlock()
            raise
        self._thread = threading.Thread(target=self._keep_fresh, name="store lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises StoreError if another writer has taken over the folder, for example while this one was suspended."""
        held = self._read()
        if held is None or held["owner"] != self._owner:
            raise StoreError(
                f"{self._name}: another writer took it over while this one was suspended; "
                "run the same command again when that one has ended"
            )

    def release(self) -> None:
        """Lets the next writer in. A second call does nothing."""
        if self._released.is_set():
            return
        self._released.set()
        self._thread.join()
        try:
            held = self._read()
            is_own = held is not None and held["owner"] == self._owner
            if is_own:
                self._folder.remove(FILE)
            if is_own and self._is_passing and self._folder.path is not None:
                with contextlib.suppress(OSError):  # the next writer has begun
                    (self._folder.path / _LOCK).unlink(missing_ok=True)
                    self._folder.path.rmdir()
        finally:
            self._unlock()

    def _lock_here(self) -> int | None:
        if self._folder.path is None or fcntl is None:
            return None
        place = self._folder.path / _LOCK
        while True:
            try:
                if self._is_passing:
                    self._folder.path.mkdir(exist_ok=True)
                lock = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                can_be = self._folder.path.parent.is_dir() and not self._folder.path.is_file()
                if self._is_passing and can_be and isinstance(error, (FileNotFoundError, FileExistsError)):
                    continue  # the writer before has just removed it
                raise StoreError(
                    f"{self._name}: cannot be written ({reason_of(error)}); "
                    "change its permissions, free some space or choose another place"
                ) from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise self._in_use(self._read()) from None
            except OSError:  # a network disk without locks: lease.json alone has to do
                os.close(lock)
                return None
            if _is_at(lock, place):
                return lock
            os.close(lock)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _wait_for_holder(self) -> None:
        held = first = self._read()
        if first is None or self._is_over(first):
            return
        if not _is_alive(first):
            left = min(self._seconds, first["time"] + self._seconds - time.time())
            left = max(left, self._seconds / 2)  # time for two renewals, also if the clock of that writer is behind
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
            writer = f"process {first['process']} on {first['host']}"
            details = {"folder": self._name, "writer": writer, "until": until}
            _log.warning("waiting to see whether another writer is alive", extra=details)
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
            f"{self._name}: another writer is at work in it{who}; wait until it has ended "
            f"(if it died on another computer, for {self._seconds:g} s)"
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
            # A lease that cannot be renewed (full disk, lost connection) may run out; then check() raises.
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
                f"{self._name}: its {FILE} cannot be read ({error}); "
                "check the disk or the connection and run the command again"
            ) from None
        known = {"owner", "host", "computer", "process", "time"} <= held.keys()
        return held if known and isinstance(held["time"], (int, float)) else None


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at ``path``."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _computer() -> str:
    """The same for all processes on one kernel, which see each other's locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _process() -> dict[str, Any]:
    """This process, as others on this computer need it to find out whether it is alive."""
    process = os.getpid()
    return {"process": process, "started": _started(process), "namespace": _namespace()}


def _namespace() -> str | None:
    """The namespace of process numbers; None if the system does not say it."""
    try:
        return f"{_computer()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(process: int) -> int | None:
    """When a process was started, in ticks of the system; 0 if it has ended, None if the system does not say it."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        return 0 if state in "ZX" else int(fields[18])
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(held: dict[str, Any]) -> bool | None:
    """Whether the process that holds a lease is alive; None if this computer cannot know it."""
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
