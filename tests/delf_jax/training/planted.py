"""A planted problem: a few cells of each map carry its class, most are distractors that all classes share."""

import numpy as np

from delf_jax.training.backbones import Backbone
from delf_jax.training.networks import NetworkConfig
from delf_jax.training.optimizers import optimizer_of
from delf_jax.training.settings import TrainingSettings
from delf_jax.training.steps import Steps

CHANNELS, CLASSES, CELLS, SIGNALS = 32, 6, 40, 5


class Planted:
    """Batches whose maps hold ``SIGNALS`` cells of the class among ``CELLS``; ``where_signal`` tells which."""

    def __init__(self, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        # Signals and distractors differ from one another, but no more within a class than between the kinds.
        self.signals = np.maximum(generator.normal(size=(CLASSES, CHANNELS)), 0)
        self.distractors = np.maximum(generator.normal(size=(4, CHANNELS)), 0)

    def batch(self, rows: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Features as a cache gives them, and the cells that carry the class, bool [rows, CELLS]."""
        generator = np.random.default_rng(seed)
        labels = generator.integers(0, CLASSES, rows).astype(np.int32)
        kinds = self.distractors[generator.integers(0, len(self.distractors), (rows, CELLS))]
        signal = np.argsort(generator.random((rows, CELLS)), axis=1) < SIGNALS
        features = np.where(signal[..., None], self.signals[labels][:, None], kinds)
        features = np.maximum(features + 0.4 * generator.normal(size=features.shape), 0) * 20
        return {"features": features.astype(np.float16), "where": np.ones_like(signal), "labels": labels}, signal


def steps_for(settings: TrainingSettings, *, steps: int) -> Steps:
    """Steps on features that need no backbone."""
    network = NetworkConfig(
        classes=CLASSES,
        channels=CHANNELS,
        hidden=settings.hidden,
        batch_norm=settings.batch_norm,
        autoencoder=settings.autoencoder,
    )
    backbone = Backbone(None, {}, "")  # type: ignore[arg-type]
    return Steps(settings, network, backbone, optimizer_of(settings, steps=steps, steps_per_epoch=50))


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """Share of (positive, negative) pairs that the scores order rightly."""
    above = scores[positive][:, None] - scores[~positive][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())
