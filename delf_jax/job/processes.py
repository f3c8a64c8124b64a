"""Several processes of one job, mostly on several hosts: who does which photos, and what they tell each other.

They find each other through ``jax.distributed``, which hosts with accelerators need anyway, and say little: that the
store is open, that a share is done, that all is merged. No collective runs, so none has to be waited for.
"""

import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from delf_jax.errors import ClusterError
from delf_jax.photos.names import path_key

_SECONDS_TO_JOIN = 300
_SECONDS_BETWEEN_LOOKS = 1
_SECONDS_TO_LEAVE = 30
_SECONDS_TO_PART = 2


class Share(NamedTuple):
    """The part of the photos that one process does: by a hash of the path, whatever else is there.

    Attributes:
        process: its number, from 0.
        processes: how many there are.
    """

    process: int
    processes: int

    def has(self, path: str) -> bool:
        """Whether a photo, or a name that gives none, is this process's."""
        return path_key(path) % self.processes == self.process


class Group:
    """The processes of a job, once all have come.

    Attributes:
        share: of this process.
    """

    def __init__(self, share: Share, client: Any) -> None:
        self.share = share
        self._client = client

    def tell(self, what: str, text: str = "") -> None:
        """Lets all processes know something, once."""
        self._client.key_value_set(f"delf-jax/{what}", text or "-")

    def hear(self, what: str, *, is_alive: Callable[[], bool]) -> str | None:
        """What another process tells, waiting for it; None when it has died before."""
        while True:
            try:
                text: str = self._client.blocking_key_value_get(f"delf-jax/{what}", 1000 * _SECONDS_BETWEEN_LOOKS)
                return "" if text == "-" else text
            except Exception as error:  # the client's own kind
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise ClusterError(
                        f"process 0 cannot be reached any more ({' '.join(str(error).split())[:150]}); "
                        "what is finished is kept, give the same command again in all processes"
                    ) from None
            if not is_alive():
                return None

    def leave(self, lost: Collection[int] = ()) -> None:
        """Parts from the others, process 0 last: those that lost its channel would be ended by JAX.

        Args:
            lost: processes that have ended before and are not waited for.
        """
        import jax

        if self.share.process:
            self.tell(f"leaving/{self.share.process}")
            jax.distributed.shutdown()
            return
        for process in set(range(1, self.share.processes)) - set(lost):
            self.hear(f"leaving/{process}", is_alive=Heartbeat(lambda: None, seconds=_SECONDS_TO_LEAVE).is_alive)
        time.sleep(_SECONDS_TO_PART)


def join(coordinator: str, processes: int | None = None, process: int | None = None) -> Group:
    """Waits until all processes have come.

    Args:
        coordinator: host:port where process 0 listens, or ``auto``: the scheduler's environment (Slurm, Open MPI,
            Kubernetes, Cloud TPU) says all three.
        processes, process: how many there are, and which this one is.

    Raises:
        ClusterError: no scheduler says what was not given, or the values are impossible.
    """
    import jax

    # One that dies must not take the others with it.
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
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ClusterError(
            f"the processes cannot join ({reason}); "
            "give --coordinator HOST:PORT, --num-processes and --process-id to each"
        ) from None
    # JAX keeps its channel between hosts to itself; Orbax, too, takes it from there.
    from jax._src import distributed

    state = distributed.global_state
    return Group(Share(state.process_id, state.num_processes), state.client)


class Heartbeat:
    """Watches something that a living process renews; clocks of different hosts need not agree."""

    def __init__(self, read: Callable[[], Any], *, seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._last: Any = None
        self._changed = time.monotonic()

    def is_alive(self) -> bool:
        """False once the same thing was read for longer than ``seconds``."""
        now = self._read()
        if now != self._last:
            self._last, self._changed = now, time.monotonic()
        return time.monotonic() - self._changed < self._seconds
