"""The global peer: one GeM descriptor per photo, from the same backbone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

import delf_jax
from benchmarks.feature_cache import cached_features
from delf_jax.errors import ImageError
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures
from delf_jax.models.pooling import gem

LAYER = "conv5"
SCALES = (0.7071, 1.0, 1.4142)
POWER = 3.0


class GlobalDescriptors:
    """GeM (p = 3) of conv5, averaged over three scales as unit vectors (DELG, section 4.2)."""

    def __init__(self) -> None:
        self._extractor = delf_jax.load(head=Head(), scorer="norm")

    @property
    def description(self) -> dict[str, Any]:
        """Everything on which the descriptor depends besides the photo, as JSON values."""
        kept = {"layer": LAYER, "scales": SCALES, "power": POWER, "max_side": self._extractor.settings.max_side}
        return {"method": "gem", "weights": self._extractor.fingerprint, **kept}

    def __call__(self, photos: Sequence[Path]) -> list[LocalFeatures]:
        """The descriptor of each photo, as its only feature.

        Raises:
            ImageError: names the first photo that cannot be used.
        """
        found: dict[int, LocalFeatures] = {}
        for place, maps in self._extractor.dense_stream(enumerate(photos), name=LAYER, scales=SCALES):
            if isinstance(maps, ImageError):
                raise maps
            found[place] = _one_feature(np.sum([_unit(_pooled(dense, usable)) for dense, usable in maps], axis=0))
        return [found[place] for place in range(len(photos))]

    def cached(self, photos: Sequence[Path], folder: Path) -> Float[np.ndarray, "n c"]:
        """Unit descriptors of all photos; only those that are not in ``folder`` yet are computed."""
        kept = cached_features(self, photos, description=self.description, folder=folder)
        return np.concatenate([one.descriptors for one in kept])


def _pooled(dense: np.ndarray, usable: np.ndarray) -> Float[np.ndarray, " c"]:
    where = usable if usable.any() else np.ones_like(usable)
    # Cells are sorted into few lengths, because each length is compiled again.
    cells = dense[where]
    padded = np.zeros((-(-len(cells) // 64) * 64, cells.shape[1]), np.float32)
    padded[: len(cells)] = cells
    return np.asarray(gem(padded, np.arange(len(padded)) < len(cells), POWER))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _one_feature(vector: np.ndarray) -> LocalFeatures:
    one = np.ones(1, np.float32)
    return LocalFeatures(np.zeros((1, 2), np.float32), one, one, _unit(vector)[None].astype(np.float32), (1, 1))
