"""The options that spread a pass over photos: workers on a Ray cluster, or several processes of one job."""

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
class SpreadingOptions:
    """Where the work is done: here, unless told otherwise.

    Attributes:
        ray: spread the photos over workers on a Ray cluster: local starts one on this machine, auto finds one that
            runs here, HOST:PORT is the head node of another.
        ray_workers: how many workers.
        coordinator: where process 0 of several listens, the same for all of them; auto: the scheduler (Slurm, Open MPI,
            Kubernetes, Cloud TPU) says it, and the next two as well.
        num_processes: how many processes do the job, each with the same command.
        process_id: which of them this is, from 0.
    """

    ray: Annotated[str | None, arg(metavar="local|auto|HOST:PORT", help_behavior_hint="(default: no cluster)")] = None
    ray_workers: Annotated[
        int | None, arg(help_behavior_hint="(default: one an accelerator, or one for every two cores)")
    ] = None

    coordinator: Annotated[str | None, arg(metavar="HOST:PORT|auto", help_behavior_hint="(default: one process)")] = (
        None
    )
    num_processes: Annotated[int | None, arg(help_behavior_hint="(needed with HOST:PORT)")] = None
    process_id: Annotated[int | None, arg(help_behavior_hint="(needed with HOST:PORT)")] = None

    @property
    def is_spread(self) -> bool:
        """Whether others help."""
        return self.ray is not None or self.coordinator is not None

    def check(self) -> None:
        """Raises UsageError where the options cannot be followed."""
        if self.ray_workers is not None and self.ray is None:
            raise UsageError("--ray-workers belongs to --ray; say where the cluster is")
        if self.ray_workers is not None and self.ray_workers < 1:
            raise UsageError(f"--ray-workers is {self.ray_workers}; it must be at least 1")
        given = (self.num_processes, self.process_id)
        if self.coordinator is None and given != (None, None):
            raise UsageError("--num-processes and --process-id need --coordinator HOST:PORT, the same for all")
        if self.coordinator is None:
            return
        if self.ray is not None:
            raise UsageError("give either --ray or --coordinator: Ray starts its workers itself")
        if self.coordinator == "auto":
            return
        if not re.fullmatch(r"[^:\s]+:\d+|\[[0-9a-fA-F:]+\]:\d+", self.coordinator):
            raise UsageError(f"--coordinator is {self.coordinator!r}; give HOST:PORT of process 0, or auto")
        if self.num_processes is None or self.process_id is None:
            raise UsageError("--coordinator HOST:PORT needs --num-processes and --process-id")
        if not 0 <= self.process_id < self.num_processes:
            raise UsageError(
                f"--process-id is {self.process_id} of {self.num_processes} processes; it counts from 0 to one less"
            )

    def join(self) -> "Group | None":
        """Waits for the other processes, before JAX looks for devices; None where there is one process."""
        if self.coordinator is None:
            return None
        from delf_jax.job import processes

        return processes.join(self.coordinator, self.num_processes, self.process_id)

    def leave_accelerators(self) -> None:
        """Keeps this process on its processor where workers, perhaps on this machine, need the accelerators."""
        if self.ray is not None:
            import jax

            jax.config.update("jax_platforms", "cpu")

    @contextlib.contextmanager
    def on_ray(self, extraction: ExtractionOptions, *, head: str | os.PathLike[str] | None) -> Iterator["RayExtractor"]:
        """The extractor of these options, on the workers of the cluster."""
        from delf_jax.job import ray_session
        from delf_jax.job.ray_extractor import RayExtractor

        assert self.ray is not None
        here = extraction.load(head=head)
        # The head goes along, as its file may be here only; of the model, every node needs the file.
        model = here.settings.model
        away = dataclasses.replace(
            extraction, head=None, model=os.path.abspath(model) if os.path.exists(model) else extraction.model
        )
        with ray_session.connected(self.ray, workers=self.ray_workers) as workers:
            yield RayExtractor(
                functools.partial(away.load, head=here.head),
                workers,
                settings=here.settings,
                fingerprint=here.fingerprint,
                dimension=here.dimension,
            )
