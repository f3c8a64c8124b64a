"""Several processes of one job, usually on several hosts: which photos each of them does, and their messages.

They find each other through ``jax.distributed``, which hosts with accelerators need anyway. They send few messages: the
store is open, a share is done, everything is merged. No collective operation runs, so a dead process blocks nobody.
"""

import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from delf_jax.errors import ClusterError, one_line
from delf_jax.files import lease
from delf_jax.files.folder import Folder
from delf_jax.photos.names import path_key

_SECONDS_TO_JOIN = 300
_SECONDS_BETWEEN_LOOKS = 1
_SECONDS_TO_LEAVE = 30
_SECONDS_TO_PART = 2
_SILENT_SECONDS = 90.0


class Share(NamedTuple):
    """The photos that one process does, chosen by a hash of their paths.

    Attributes:
        process: its number, from 0.
        processes: the number of processes.
    """

    process: int
    processes: int

    def owns(self, path: str) -> bool:
        """Whether this process does a photo, or reports a name for which there is no photo."""
        return path_key(path) % self.processes == self.process


class Group:
    """The processes of a job, after all have joined.

    Attributes:
        share: the photos of this process.
    """

    def __init__(self, share: Share, client: Any) -> None:
        self.share = share
        self._client = client

    def publish(self, what: str, text: str = "") -> None:
        """Sends a message, named ``what``, to all processes. Each name can be used once."""
        self._client.key_value_set(f"delf-jax/{what}", text or "-")

    def wait_for(self, what: str, *, is_alive: Callable[[], bool]) -> str | None:
        """Waits for the message ``what`` of another process; returns None if that process has died before."""
        while True:
            try:
                text: str = self._client.blocking_key_value_get(f"delf-jax/{what}", 1000 * _SECONDS_BETWEEN_LOOKS)
                return "" if text == "-" else text
            except Exception as error:  # the client has no class of its own for it
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise ClusterError(
                        f"process 0 cannot be reached ({one_line(error)}); "
                        "what is finished is kept, run the same command again in all processes"
                    ) from None
            if not is_alive():
                return None

    def wait_for_writer(self, what: str, folder: Folder) -> str | None:
        """``wait_for`` a process that holds the lease of ``folder``: it has died if it no longer renews the lease."""

        def read() -> bytes:
            try:
                return folder.read(lease.FILE)
            except OSError:
                return b""

        return self.wait_for(what, is_alive=Heartbeat(read, seconds=_SILENT_SECONDS).is_alive)

    def leave(self, lost: Collection[int] = ()) -> None:
        """Leaves the group. Process 0 leaves last, because JAX ends processes that lose their connection to it.

        Args:
            lost: processes that have died, for which this does not wait.
        """
        import jax

        if self.share.process:
            self.publish(f"leaving/{self.share.process}")
            jax.distributed.shutdown()
            return
        for process in set(range(1, self.share.processes)) - set(lost):
            self.wait_for(f"leaving/{process}", is_alive=Heartbeat(lambda: None, seconds=_SECONDS_TO_LEAVE).is_alive)
        time.sleep(_SECONDS_TO_PART)


def join(coordinator: str, processes: int | None = None, process: int | None = None) -> Group:
    """Waits until all processes have joined.

    Args:
        coordinator: host:port at which process 0 listens; or ``auto``, which takes all three values from the
            environment that a scheduler sets (Slurm, Open MPI, Kubernetes, Cloud TPU).
        processes, process: the number of processes, and the number of this one.

    Raises:
        ClusterError: a value is impossible, or it is missing and no scheduler gives it.
    """
    import jax

    # A process that dies must not end the others.
    jax.config.update("jax_enable_recoverability", True)
    try:
        jax.distributed.initialize(
            None if coordinator == "auto" else coordinator,
            processes,
            process,
            cluster_detection_method=None if coordinator == "auto" else "deactivate",
            initialization_timeout=_SECONDS_TO_JOIN,
            shutdown_timeout_seconds=_SECONDS_TO_LEAVE,
        )
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        reason = one_line(error).rstrip(".")
        raise ClusterError(
            f"the processes cannot join ({reason}); "
            "give --coordinator HOST:PORT, --num-processes and --process-id to each"
        ) from None
    # JAX has no public way to its client; Orbax takes it from there too.
    from jax._src import distributed

    state = distributed.global_state
    return Group(Share(state.process_id, state.num_processes), state.client)


class Heartbeat:
    """Watches a value that a living process renews. The clocks of the hosts may differ."""

    def __init__(self, read: Callable[[], Any], *, seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._last: Any = None
        self._changed = time.monotonic()

    def is_alive(self) -> bool:
        """Whether the value has changed within the last ``seconds``."""
        now = self._read()
        if now != self._last:
            self._last, self._changed = now, time.monotonic()
        return time.monotonic() - self._changed < self._seconds
