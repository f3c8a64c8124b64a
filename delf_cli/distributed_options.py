"""The options that distribute a job: over workers of a Ray cluster, or over several processes."""

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from delf_cli.options import ExtractionOptions, UsageError

if TYPE_CHECKING:
    from delf_jax.job.processes import Group
    from delf_jax.job.ray_extractor import RayExtractor


@dataclasses.dataclass(frozen=True)
class DistributedOptions:
    """Where the work runs. The default is this process.

    Attributes:
        ray: distribute the photos over workers of a Ray cluster. local starts a cluster on this machine, auto uses the
            one that runs here, HOST:PORT is the head node of another one.
        ray_workers: number of workers.
        coordinator: address at which process 0 listens, the same for all processes. auto takes it from the scheduler
            (Slurm, Open MPI, Kubernetes, Cloud TPU), together with the next two options.
        num_processes: number of processes that share the job. Start each with the same command.
        process_id: number of this process, starting at 0.
    """

    ray: Annotated[str | None, arg(metavar="local|auto|HOST:PORT", help_behavior_hint="(default: no cluster)")] = None
    ray_workers: Annotated[
        int | None, arg(help_behavior_hint="(default: one per accelerator, or one per two CPU cores)")
    ] = None

    coordinator: Annotated[str | None, arg(metavar="HOST:PORT|auto", help_behavior_hint="(default: one process)")] = (
        None
    )
    num_processes: Annotated[int | None, arg(help_behavior_hint="(needed with HOST:PORT)")] = None
    process_id: Annotated[int | None, arg(help_behavior_hint="(needed with HOST:PORT)")] = None

    @property
    def is_distributed(self) -> bool:
        """Whether other processes share the work."""
        return self.ray is not None or self.coordinator is not None

    def check(self) -> None:
        """Raises UsageError if the options contradict each other."""
        if self.ray_workers is not None and self.ray is None:
            raise UsageError("--ray-workers needs --ray; say where the cluster is")
        if self.ray_workers is not None and self.ray_workers < 1:
            raise UsageError(f"--ray-workers is {self.ray_workers}; it must be at least 1")
        given = (self.num_processes, self.process_id)
        if self.coordinator is None and given != (None, None):
            raise UsageError(
                "--num-processes and --process-id need --coordinator HOST:PORT, the same for all processes"
            )
        if self.coordinator is None:
            return
        if self.ray is not None:
            raise UsageError("give either --ray or --coordinator, not both: Ray starts its own workers")
        if self.coordinator == "auto":
            return
        if not re.fullmatch(r"[^:\s]+:\d+|\[[0-9a-fA-F:]+\]:\d+", self.coordinator):
            raise UsageError(f"--coordinator is {self.coordinator!r}; give the HOST:PORT of process 0, or auto")
        if self.num_processes is None or self.process_id is None:
            raise UsageError("--coordinator HOST:PORT needs --num-processes and --process-id")
        if not 0 <= self.process_id < self.num_processes:
            last = self.num_processes - 1
            raise UsageError(
                f"--process-id is {self.process_id}; with {last + 1} processes it must be from 0 to {last}"
            )

    def join(self) -> "Group | None":
        """Waits for the other processes; None if this is the only one. Call it before JAX looks for devices."""
        if self.coordinator is None:
            return None
        from delf_jax.job import processes

        return processes.join(self.coordinator, self.num_processes, self.process_id)

    def leave_accelerators(self) -> None:
        """With --ray, keeps this process on the CPU: workers on the same machine need the accelerators."""
        if self.ray is not None:
            import jax

            jax.config.update("jax_platforms", "cpu")

    @contextlib.contextmanager
    def on_ray(self, extraction: ExtractionOptions, *, head: str | os.PathLike[str] | None) -> Iterator["RayExtractor"]:
        """The extractor for these options, which runs on the workers of the cluster."""
        from delf_jax.job import ray_session
        from delf_jax.job.ray_extractor import RayExtractor

        assert self.ray is not None
        local = extraction.load(head=head)
        # Workers get the head itself: its file may exist only on this machine. The model file must exist on every node.
        model = local.settings.model
        on_worker = dataclasses.replace(
            extraction, head=None, model=os.path.abspath(model) if os.path.exists(model) else extraction.model
        )
        with ray_session.connected(self.ray, workers=self.ray_workers) as workers:
            yield RayExtractor(
                functools.partial(on_worker.load, head=local.head),
                workers,
                settings=local.settings,
                fingerprint=local.fingerprint,
                dimension=local.dimension,
            )
