"""The settings of a training run, as in a preset file."""

import dataclasses
import json
import math
import os
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from delf_jax.errors import DelfError
from delf_jax.settings import Precision

Recipe = Literal["descriptors", "attention", "joint"]
Pooling = Literal["sum", "mean", "unit"]
Order = Literal["shuffled", "balanced"]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["constant", "linear", "halving", "cosine"]
Augmentation = Literal["square", "area", "warp"]

_FOLDER = Path(__file__).parent / "presets"
# Smaller photos tell a network nothing.
_SMALLEST_SIDE = 16


class TrainingError(DelfError):
    """A training run that cannot start or go on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """All that decides the result of a training run, besides photos and backbone.

    Attributes:
        recipe: ``descriptors`` fine-tunes the backbone by a classifier of whole photos (the paper's first stage),
            ``attention`` learns the attention on a frozen backbone (its second), ``joint`` does both at once and can
            also learn DELG's autoencoder and global descriptor (the official trainer).
        train_backbone: whether ``joint`` changes the backbone.
        layer: the map that the attention weighs.
        photo_layer: the map pooled over the whole photo for the loss that trains the backbone.
        cached: compute the maps of a frozen backbone once, for ``views`` of every photo, and train on them.
        views: of every photo when cached: the whole photo at each of ``view_sides``, then random crops.
        view_sides: longest sides of the views in pixels, in turn.
        augmentation: how a crop is taken. ``square``: at a random place of the central square, resized to ``resize``
            (paper); ``area``: of random area and aspect (official trainer); ``warp``: a random quadrilateral and light.
        area: smallest share of the photo's area that ``area`` and ``warp`` keep.
        resize: see ``square``.
        side: of a crop, in pixels, when not cached.
        smallest_gamma: every batch is rescaled by a random factor between this and 1; 1 changes nothing.
        hidden: channels between the attention's two convolutions.
        batch_norm: whether there is a batch norm between them.
        warm_start: start with the attention of the base head (``--head``, or the model's own), not at random.
        cells_per_step: cells drawn at random at every step from each cached map; 0 for all. With few, the attention
            has to tell the classifier which cells to trust.
        feature_norm: mean length of features after scaling by one factor; 0 for the square root of their channels.
        pooling: ``sum`` of weighted features (paper), ``mean`` of weighted unit features (official code), or ``unit``,
            the sum scaled to the length ``temperature``.
        temperature: length of ``unit``.
        autoencoder: channels of the reduced features; 0 for none.
        embedding: length of the global descriptor; 0 for none.
        attention_weight: of the attention's cross-entropy in the loss.
        reconstruction_weight: of the autoencoder's squared error.
        label_smoothing: of the cross-entropies.
        optimizer: ``sgd`` with momentum 0.9, or ``adamw``.
        learning_rate: at the start.
        schedule: ``linear`` to 0, ``halving`` every ``halve_every`` epochs, ``cosine`` to 0, or ``constant``.
        halve_every: epochs between two halvings.
        weight_decay: of kernels; biases and batch norm have none.
        clip: largest norm of a gradient.
        order: ``shuffled``: all photos in a new order every epoch; ``balanced``: all classes equally often.
        batch_size: photos a step, over all devices.
        epochs: passes over the photos.
        steps: number of steps, instead of epochs, if above 0.
        validation: share of the photos kept aside to choose the best checkpoint.
        checkpoint_every: steps between checkpoints.
        precision: compute type; parameters, losses and statistics stay float32.
        seed: of first parameters, order and crops.
    """

    recipe: Recipe
    train_backbone: bool = False
    layer: str = "conv4"
    photo_layer: str = "conv5"
    cached: bool = False
    views: int = 1
    view_sides: tuple[int, ...] = (384,)
    augmentation: Augmentation = "area"
    area: float = 0.08
    resize: int = 250
    side: int = 321
    smallest_gamma: float = 1.0
    hidden: int = 512
    batch_norm: bool = False
    warm_start: bool = False
    cells_per_step: int = 0
    feature_norm: float = 0.0
    pooling: Pooling = "sum"
    temperature: float = 100.0
    autoencoder: int = 0
    embedding: int = 0
    attention_weight: float = 1.0
    reconstruction_weight: float = 10.0
    label_smoothing: float = 0.0
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.01
    schedule: Schedule = "linear"
    halve_every: int = 10
    weight_decay: float = 1e-4
    clip: float = 10.0
    order: Order = "shuffled"
    batch_size: int = 32
    epochs: int = 30
    steps: int = 0
    validation: float = 0.0
    checkpoint_every: int = 100
    precision: Precision = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "views", "hidden", "halve_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("steps", "autoencoder", "embedding", "cells_per_step"):
            if getattr(self, name) < 0:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("learning_rate", "clip", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("feature_norm", "attention_weight", "reconstruction_weight", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if min(self.side, self.resize, *self.view_sides) < _SMALLEST_SIDE:
            raise TrainingError(f"side, resize and view_sides are in pixels and at least {_SMALLEST_SIDE}")
        if not 0 <= self.seed < 2**32:
            raise TrainingError(f"seed is {self.seed}; it must be 0 to {2**32 - 1}")
        if not 0 <= self.label_smoothing < 1:
            raise TrainingError(f"label_smoothing is {self.label_smoothing}; it must be from 0 to below 1")
        if self.recipe == "attention" and self.train_backbone:
            raise TrainingError("the recipe 'attention' does not train the backbone; use 'descriptors' for that")
        if self.cached and self.changes_backbone:
            raise TrainingError("maps can only be cached if the backbone is not trained; set cached = false")
        if self.cells_per_step and not self.cached:
            raise TrainingError("cells_per_step draws from cached maps; set cached = true")
        if self.embedding and not self.changes_backbone:
            raise TrainingError("a global descriptor is trained together with the backbone; set train_backbone = true")
        if self.warm_start and (not self.has_attention or self.batch_norm or self.autoencoder):
            raise TrainingError("warm_start needs an attention without batch norm and autoencoder; set it to false")
        if not 0 <= self.validation < 1:
            raise TrainingError(f"validation is {self.validation}; it is a share of the photos, from 0 to below 1")
        if not 0 < self.area <= 1 or not 0 < self.smallest_gamma <= 1:
            raise TrainingError("area and smallest_gamma are shares above 0 and up to 1")
        if self.augmentation == "square" and not self.cached and self.side > self.resize:
            raise TrainingError(f"side {self.side} is larger than resize {self.resize}; a crop must fit")

    @property
    def changes_backbone(self) -> bool:
        """Whether the backbone is trained."""
        return self.recipe == "descriptors" or self.train_backbone

    @property
    def has_attention(self) -> bool:
        """Whether an attention is trained."""
        return self.recipe != "descriptors"

    def to_toml(self) -> str:
        """The settings as a preset file."""
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in dataclasses.asdict(self).items())


def open_preset(name: str | os.PathLike[str], changes: dict[str, Any] | None = None) -> TrainingSettings:
    """The settings of a packaged preset or of a preset file, with some of them changed.

    Raises:
        TrainingError: there is no such preset, or a setting does not exist or has a wrong value.
    """
    path = _FOLDER / f"{name}.toml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        raise TrainingError(
            f"{name}: there is no such preset; packaged: {', '.join(preset_names())}; or name a .toml file"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig")) | (changes or {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: {error}; correct the line or use a packaged preset") from error
    return from_values(values, place=str(name))


def from_values(values: dict[str, Any], *, place: str) -> TrainingSettings:
    """Settings from plain values, each checked against its type; ``place`` names them in errors."""
    kinds = get_type_hints(TrainingSettings)
    checked = {}
    for name, value in values.items():
        if name not in kinds:
            raise TrainingError(f"{place}: there is no setting '{name}'; known: {', '.join(kinds)}")
        choices = get_args(kinds[name]) if get_origin(kinds[name]) is Literal else ()
        if choices and value not in choices:
            raise TrainingError(f"{place}: {name} is {value!r}; choose one of: {', '.join(choices)}")
        checked[name] = _as(name, value, getattr(TrainingSettings, name, ""), place)
    if "recipe" not in checked:
        raise TrainingError(f"{place}: it has no recipe; add one of: descriptors, attention, joint")
    return TrainingSettings(**checked)


def preset_names() -> list[str]:
    """The packaged presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def parse_changes(changes: tuple[str, ...]) -> dict[str, Any]:
    """``("batch_size=16", "pooling=mean")`` as values.

    >>> parse_changes(("batch_size=16", "pooling=mean"))
    {'batch_size': 16, 'pooling': 'mean'}
    """
    parsed = {}
    for change in changes:
        name, sign, text = change.partition("=")
        if not sign:
            raise TrainingError(f"{change}: write a changed setting as name=value")
        try:
            parsed[name.strip()] = json.loads(text)
        except ValueError:
            parsed[name.strip()] = text.strip()
    return parsed


def _as(name: str, value: Any, example: Any, place: str) -> Any:
    """The value in the type of ``example``."""
    if isinstance(example, tuple):
        value = value if isinstance(value, list) else [value]
        if value and all(isinstance(entry, int) and entry > 0 for entry in value):
            return tuple(value)
    elif isinstance(example, float) and (isinstance(value, float) or (type(value) is int and abs(value) < 1e300)):
        return float(value)
    elif type(value) is type(example):
        return value
    raise TrainingError(f"{place}: {name} is {value!r}; give a value like {json.dumps(example)}")
