"""Checkpoints of a run: all that is needed to resume, in one folder per step that appears whole or not at all."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from delf_jax.errors import one_line
from delf_jax.training.settings import TrainingError


class Checkpoints:
    """The last two and the best checkpoint, written in the background (Orbax).

    The process may be killed at any time: an unfinished checkpoint does not count, and is removed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        policies = [LatestN(2), BestN(n=1, get_metric_fn=lambda metrics: metrics["loss"], reverse=True)]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            # A step's folder is renamed when all of it is written.
            best_fn=lambda metrics: metrics["loss"],
            best_mode="min",
        )
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    @property
    def last(self) -> int | None:
        """The last finished step."""
        step: int | None = self._manager.latest_step()
        return step

    @property
    def best(self) -> int | None:
        """The step of the smallest loss."""
        step: int | None = self._manager.best_step()
        return step

    def save(self, step: int, state: Any, feed: dict[str, Any], *, loss: float) -> None:
        """Begins to write a checkpoint; returns as soon as the arrays are copied.

        Args:
            step: steps done.
            state: pytree of arrays.
            feed: position in the batches, as plain JSON values.
            loss: decides which checkpoint is the best.

        Raises:
            OSError: the disk is full, for this or the previous checkpoint, which is written in the background.
        """
        if step in self._manager.all_steps():
            return
        parts = ocp.args.Composite(state=ocp.args.StandardSave(state), feed=ocp.args.JsonSave(feed))
        with self._full_disk():
            self._manager.save(step, args=parts, metrics={"loss": float(loss)}, force=True)

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """State and feed of a step.

        Args:
            step: one of the kept steps.
            like: a state of the same structure, which gives shapes, types and placement.

        Raises:
            TrainingError: the checkpoint is damaged.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        parts = ocp.args.Composite(state=ocp.args.StandardRestore(target), feed=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=parts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            place = f"{self._manager.directory}/{step}"
            reason = one_line(error)
            raise TrainingError(
                f"{place}: cannot be read ({reason}); remove that folder to resume from an older one"
            ) from error
        return restored.state, restored.feed

    def wait(self) -> None:
        """Waits until everything is on the disk; OSError if it is full."""
        with self._full_disk():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the checkpoint that is being written, and closes."""
        with self._full_disk():
            self._manager.close()

    @contextlib.contextmanager
    def _full_disk(self) -> Iterator[None]:
        """Turns TensorStore's ValueError for a full disk into OSError; a full accelerator raises one too."""
        try:
            yield
        except ValueError as error:
            if os.strerror(errno.ENOSPC) not in str(error):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._manager.directory)) from error
