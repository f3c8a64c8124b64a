"""Optimizers and their learning rates over the steps of a run."""

from typing import Any

import jax
import optax

from delf_jax.training.settings import TrainingSettings

_MOMENTUM = 0.9


def optimizer_of(settings: TrainingSettings, *, steps: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """Clipping, weight decay of kernels, then SGD with momentum or AdamW at the scheduled rate."""
    rate = learning_rate(settings, steps=steps, steps_per_epoch=steps_per_epoch)
    clipping = optax.clip_by_global_norm(settings.clip)
    if settings.optimizer == "adamw":
        return optax.chain(clipping, optax.adamw(rate, weight_decay=settings.weight_decay, mask=_kernels))
    decay = optax.add_decayed_weights(settings.weight_decay, mask=_kernels)
    return optax.chain(clipping, decay, optax.sgd(rate, momentum=_MOMENTUM))


def learning_rate(settings: TrainingSettings, *, steps: int, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate as a function of the step."""
    rate = settings.learning_rate
    if settings.schedule == "linear":
        return optax.linear_schedule(rate, 0.0, steps)
    if settings.schedule == "cosine":
        return optax.cosine_decay_schedule(rate, steps)
    if settings.schedule == "halving":
        return optax.exponential_decay(rate, settings.halve_every * steps_per_epoch, 0.5, staircase=True)
    return optax.constant_schedule(rate)


def _kernels(parameters: Any) -> Any:
    def is_kernel(path: Any, leaf: Any) -> bool:
        # Equal units share their arrays, so their biases have two axes.
        return leaf.ndim > 1 and path[-1] != jax.tree_util.DictKey("bias")

    return jax.tree_util.tree_map_with_path(is_kernel, parameters)
