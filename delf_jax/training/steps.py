"""A training step of every recipe: a pure function over pytrees, compiled once per shape, on all local devices.

Photos and cached maps use the same loss. Every photo has the same weight: sums over photos are added over the devices
before they are divided, so eight devices give the same result as one.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from delf_jax.models.pooling import attentive_pool
from delf_jax.training import losses, networks
from delf_jax.training.backbones import Backbone
from delf_jax.training.networks import AXIS, NetworkConfig
from delf_jax.training.settings import TrainingSettings

Batch = Mapping[str, Any]
State = dict[str, Any]

_CANVASES = (1 / 2, 3 / 4, 1.0)


class Steps:
    """The compiled steps of one run.

    A state is a dict of pytrees: ``trained`` (heads, and the backbone if it is trained), ``statistics``, ``optimizer``,
    ``step``, and constants of the first batch that normalise inputs. ``units`` has a factor for each map, which makes
    the root mean square of its features 1 (or their length ``feature_norm``). ``cells`` is the mean number of usable
    cells.

    A batch holds ``labels`` int32 [B] (-1: no photo) with either ``images`` [B, S, S, 3], ``valid_hw`` int32 [B, 2] and
    ``gamma`` float32 [], or ``features`` [B, N, C] and ``where`` bool [B, N].
    """

    def __init__(
        self,
        settings: TrainingSettings,
        network: NetworkConfig,
        backbone: Backbone,
        optimizer: optax.GradientTransformation,
        *,
        attention: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Compiles nothing yet. ``attention`` holds a head's arrays to start with; None starts at random."""
        self.settings = settings
        self.network = network
        self.backbone = backbone
        self.optimizer = optimizer
        self.devices = tuple(jax.local_devices())
        self._attention = attention
        self._mesh = Mesh(np.array(self.devices), (AXIS,))
        self.replicated = NamedSharding(self._mesh, P())
        frozen = {} if settings.changes_backbone or settings.cached else backbone.parameters
        self._frozen = jax.device_put(frozen, self.replicated)
        self._train = jax.jit(self._train_step, static_argnames="canvas")
        self._evaluate = jax.jit(self._evaluate_step, static_argnames="canvas")

    def first_state(self, batch: Batch) -> State:
        """The state before the first step; the first batch gives the scale of features."""
        heads, statistics = networks.initialise(self.network, seed=self.settings.seed)
        backbone = self.backbone.parameters if self.settings.changes_backbone else {}
        units, cells = self._measure(jax.device_put(backbone, self.replicated), batch)
        if self._attention is not None:
            unit = float(units[self.settings.layer])
            heads["attention"] = networks.imported_attention(self._attention, unit=unit)
        trained = {"heads": heads, "backbone": backbone}
        state = {
            "trained": trained,
            "statistics": statistics,
            "step": np.int32(0),
            "optimizer": self.optimizer.init(trained),
            "units": units,
            "cells": cells,
        }
        placed: State = jax.device_put(state, self.replicated)
        return placed

    def train(self, state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        """The state after one more batch, and the batch's mean losses and accuracy before it."""
        placed, canvas = self._placed(batch)
        result: tuple[State, dict[str, Array]] = self._train(state, self._frozen, placed, canvas=canvas)
        return result

    def evaluate(self, state: State, batch: Batch) -> dict[str, Array]:
        """Losses and accuracy of a batch as *sums* over its ``photos``, with the running statistics."""
        placed, canvas = self._placed(batch)
        sums: dict[str, Array] = self._evaluate(state, self._frozen, placed, canvas=canvas)
        return sums

    def _placed(self, batch: Batch) -> tuple[dict[str, Array], int | None]:
        canvas = None
        arrays = {name: batch[name] for name in ("labels", "features", "where", "images", "valid_hw") if name in batch}
        if "gamma" in batch and float(batch["gamma"]) < 1:
            arrays["gamma"] = np.float32(batch["gamma"])
            canvas = _canvas(max(batch["images"].shape[1:3]), float(batch["gamma"]))
        missing = -len(batch["labels"]) % len(self.devices)
        if missing:
            arrays = {name: _padded(array, missing, name) for name, array in arrays.items()}
        rows = NamedSharding(self._mesh, P(AXIS))
        placed = {name: jax.device_put(a, rows if np.ndim(a) else self.replicated) for name, a in arrays.items()}
        return placed, canvas

    def _sharded(self, function: Any, batch: Batch, canvas: int | None) -> Any:
        rows = {name: P(AXIS) if array.ndim else P() for name, array in batch.items()}
        function = functools.partial(function, canvas=canvas)
        return jax.shard_map(function, mesh=self._mesh, in_specs=(P(), P(), rows), out_specs=P())

    def _train_step(self, state: State, frozen: Any, batch: Batch, *, canvas: int | None) -> tuple[State, Any]:
        return self._sharded(self._local_train, batch, canvas)(state, frozen, batch)

    def _evaluate_step(self, state: State, frozen: Any, batch: Batch, *, canvas: int | None) -> Any:
        def local(state: State, frozen: Any, batch: Batch, *, canvas: int | None) -> Any:
            sums, _ = self._sums(state["trained"], state, frozen, batch, canvas=canvas, training=False)
            return lax.psum(sums, AXIS)

        return self._sharded(local, batch, canvas)(state, frozen, batch)

    def _local_train(self, state: State, frozen: Any, batch: Batch, *, canvas: int | None) -> tuple[State, Any]:
        def objective(trained: Any) -> tuple[Array, Any]:
            sums, statistics = self._sums(trained, state, frozen, batch, canvas=canvas, training=True)
            sums = lax.psum(sums, AXIS)
            means = {name: value / jnp.maximum(sums["photos"], 1) for name, value in sums.items() if name != "photos"}
            return means["loss"], (means, statistics)

        # The parameters are the same on all devices, so their gradient is already the sum over devices.
        gradient, (metrics, statistics) = jax.grad(objective, has_aux=True)(state["trained"])
        updates, optimizer = self.optimizer.update(gradient, state["optimizer"], state["trained"])
        metrics["gradient_norm"] = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient)))
        state = state | {
            "trained": optax.apply_updates(state["trained"], updates),
            "statistics": statistics,
            "optimizer": optimizer,
            "step": state["step"] + 1,
        }
        return state, metrics

    def _measure(self, backbone: Any, batch: Batch) -> tuple[dict[str, np.float32], np.float32]:
        placed, canvas = self._placed(batch)

        def local(backbone: Any, frozen: Any, batch: Batch, *, canvas: int | None) -> tuple[Any, Any, Array]:
            squares, counts = {}, {}
            for name, (cells, where) in self._maps(backbone, frozen, batch, canvas=canvas).items():
                usable = where & (batch["labels"] >= 0)[:, None]
                squares[name] = jnp.where(usable, jnp.square(cells.astype(jnp.float32)).mean(axis=-1), 0).sum()
                counts[name] = usable.sum()
            measured: tuple[Any, Any, Array] = lax.psum((squares, counts, (batch["labels"] >= 0).sum()), AXIS)
            return measured

        squares, counts, photos = jax.jit(self._sharded(local, placed, canvas))(backbone, self._frozen, placed)
        units = {
            name: np.float32(1 / max(float(squares[name]) / max(int(counts[name]), 1), 1e-12) ** 0.5)
            for name in squares
        }
        if self.settings.feature_norm and self.settings.layer in units:
            units[self.settings.layer] *= np.float32(self.settings.feature_norm / self.network.channels**0.5)
        return units, np.float32(max(int(counts.get(self.settings.layer, 1)), 1) / max(int(photos), 1))

    def _maps(self, backbone: Any, frozen: Any, batch: Batch, *, canvas: int | None) -> dict[str, tuple[Array, Array]]:
        """Cells and usable cells of the maps that the losses need."""
        settings = self.settings
        if "features" in batch:
            return {settings.layer: (batch["features"], batch["where"])}
        wanted = {settings.layer} if settings.has_attention else set()
        if settings.changes_backbone:
            wanted.add(settings.photo_layer)
        names = self.backbone.map_names
        maps, valid_hw = self.backbone.maps(
            backbone if settings.changes_backbone else frozen,
            batch["images"],
            batch["valid_hw"],
            last=max(wanted, key=names.index),
            precision=settings.precision,
            gamma=batch.get("gamma"),
            canvas=canvas,
        )
        return {name: self.backbone.cells(maps[name], valid_hw, name) for name in wanted}

    def _sums(
        self, trained: Any, state: State, frozen: Any, batch: Batch, *, canvas: int | None, training: bool
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Sums of every loss over this device's photos, and the running statistics after them."""
        settings = self.settings
        labels = batch["labels"]
        counted = labels >= 0
        heads = networks.merge(self.network, trained["heads"], state["statistics"])
        maps = self._maps(trained["backbone"], frozen, batch, canvas=canvas)
        terms: dict[str, Array] = {"loss": jnp.zeros(labels.shape)}
        if settings.changes_backbone:
            cells, where = maps[settings.photo_layer]
            cells = cells.astype(jnp.float32) * state["units"][settings.photo_layer]
            logits = heads.photo_logits(cells, where, labels, training=training)
            terms["descriptor_loss"] = losses.cross_entropy(logits, labels, smoothing=settings.label_smoothing)
            terms["descriptor_accuracy"] = (logits.argmax(axis=-1) == labels).astype(jnp.float32)
            terms["loss"] += terms["descriptor_loss"]
        if settings.has_attention:
            cells, where = maps[settings.layer]
            where &= counted[:, None]
            dtype = jnp.bfloat16 if settings.precision == "bfloat16" else jnp.float32
            # Without this stop, joint training gives weak descriptors (DELF section 3.3).
            features = (lax.stop_gradient(cells).astype(jnp.float32) * state["units"][settings.layer]).astype(dtype)
            seen = features
            if heads.autoencoder is not None:
                seen = heads.autoencoder(features)
                exact = features.astype(jnp.float32)
                terms["reconstruction_loss"] = losses.reconstruction(exact, seen.astype(jnp.float32), where)
                terms["loss"] += settings.reconstruction_weight * terms["reconstruction_loss"]
            scores = heads.scores(seen, where, training=training)
            pooled = attentive_pool(
                features.astype(jnp.float32),
                scores,
                where,
                pooling=settings.pooling,
                cells=state["cells"],
                temperature=settings.temperature,
            )
            logits = heads.attention_logits(pooled)
            terms["attention_loss"] = losses.cross_entropy(logits, labels, smoothing=settings.label_smoothing)
            terms["accuracy"] = (logits.argmax(axis=-1) == labels).astype(jnp.float32)
            terms["loss"] += settings.attention_weight * terms["attention_loss"]
        sums = {name: jnp.where(counted, value, 0).sum() for name, value in terms.items()}
        return sums | {"photos": counted.sum().astype(jnp.float32)}, networks.statistics_of(heads)


def _padded(array: np.ndarray, rows: int, name: str) -> np.ndarray:
    """Adds ``rows`` rows without photo at the end; every device must get the same number of rows."""
    if not np.ndim(array):
        return array
    return np.pad(array, [(0, rows)] + [(0, 0)] * (array.ndim - 1), constant_values=-1 if name == "labels" else 0)


def _canvas(side: int, gamma: float) -> int:
    """The smallest of three canvases that holds photos reduced by gamma; each is a program to compile."""
    needed = side * gamma + 0.5
    return next(canvas for share in _CANVASES if (canvas := -(-int(side * share) // 16) * 16) >= needed or share == 1)
