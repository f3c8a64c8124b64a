"""The options that spread a pass over photos: workers on a Ray cluster, or several processes of one job."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from delf_jax.command.options import ExtractionOptions, UsageError

if TYPE_CHECKING:
    from delf_jax.cluster.ray_extractor import RayExtractor


@dataclasses.dataclass(frozen=True)
class SpreadingOptions:
    """Where the work is done: here, unless told otherwise.

    Attributes:
        ray: spread the photos over workers on a Ray cluster: local starts one on this machine, auto finds one that
            runs here, HOST:PORT is the head node of another.
        ray_workers: how many workers.
    """

    ray: Annotated[str | None, arg(metavar="local|auto|HOST:PORT", help_behavior_hint="(default: no cluster)")] = None
    ray_workers: Annotated[
        int | None, arg(help_behavior_hint="(default: one an accelerator, or one for every two cores)")
    ] = None

    def check(self) -> None:
        """Raises UsageError where the options cannot be followed."""
        if self.ray_workers is not None and self.ray is None:
            raise UsageError("--ray-workers belongs to --ray; say where the cluster is")
        if self.ray_workers is not None and self.ray_workers < 1:
            raise UsageError(f"--ray-workers is {self.ray_workers}; it must be at least 1")

    def leave_accelerators(self) -> None:
        """Keeps this process on its processor where workers, perhaps on this machine, need the accelerators."""
        if self.ray is not None:
            import jax

            jax.config.update("jax_platforms", "cpu")

    @contextlib.contextmanager
    def on_ray(self, extraction: ExtractionOptions, *, head: str | os.PathLike[str] | None) -> Iterator["RayExtractor"]:
        """The extractor of these options, on the workers of the cluster."""
        from delf_jax.cluster import ray_session
        from delf_jax.cluster.ray_extractor import RayExtractor

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
