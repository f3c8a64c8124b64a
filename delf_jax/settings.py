"""``ExtractionSettings``: stored in every store and index, and compared before features are mixed."""

import dataclasses
import math
from typing import Any, Literal

Scorer = Literal["foreground", "learned", "norm"]
Precision = Literal["float32", "bfloat16"]
Detection = Literal["peaks", "cells"]
Preset = Literal["fast", "default", "best"]

DEFAULT_SCALES = (0.5, 0.7071, 1.0, 1.4142, 2.0)


@dataclasses.dataclass(frozen=True)
class ExtractionSettings:
    """Everything except the weights that decides which features a photo gets; hashable.

    Attributes:
        model: name of a packaged model, or the path of a model file.
        scorer: ``learned``, ``foreground`` or ``norm``; a head without a trained attention has only the last two.
        max_features: the most features kept per photo (K of the top-k).
        max_side: photos whose longest side is larger are reduced to this many pixels before the pyramid.
        scales: image scales of the pyramid, relative to the reduced photo. The paper adds 0.25 and 0.3536, which did
            not help on the development photos.
        detection: ``peaks`` keeps local maxima of the feature norm away from the photo's border; a parabola places
            them between cells, and their descriptors are interpolated. ``cells`` keeps every cell at its own centre,
            as the official code does.
        precision: type in which the backbone computes.
        conv5_stride: 1 gives conv5 as many cells as conv4 (the same weights on a finer grid); None is the stride that
            the weights were trained with.
        threshold: keep features whose score is at least this, in the unit of the scorer; None keeps all.
        quantile: keep features whose score is at least this quantile (0 to 1) of the photo's scores; None keeps all.
    """

    model: str = "delf-r50"
    scorer: Scorer = "learned"
    max_features: int = 1000
    max_side: int = 1024
    scales: tuple[float, ...] = DEFAULT_SCALES
    detection: Detection = "peaks"
    precision: Precision = "float32"
    conv5_stride: Literal[1, 2] | None = None
    threshold: float | None = None
    quantile: float | None = None

    def __post_init__(self) -> None:
        numbers = (self.max_features, self.max_side, *self.scales)
        if not isinstance(self.model, str) or not all(isinstance(number, (int, float)) for number in numbers):
            raise ValueError("model must be a string; max_features, max_side and scales must be numbers")
        if self.max_features < 1:
            raise ValueError(f"max_features is {self.max_features}; it must be at least 1")
        if self.max_side < 16:
            raise ValueError(f"max_side is {self.max_side}; it must be at least 16 pixels")
        if not self.scales or not all(math.isfinite(s) and 0 < s <= 8 for s in self.scales):
            shown = ", ".join(map(str, self.scales)) or "empty"
            raise ValueError(f"scales are {shown}; give one or more numbers above 0 and up to 8")
        if self.quantile is not None and not 0 <= self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}; it must be at least 0 and below 1")

    def with_preset(self, preset: str) -> "ExtractionSettings":
        """These settings with the scales, the size and the number of features of a preset.

        Raises:
            ValueError: there is no such preset.
        """
        if preset not in _PRESETS:
            raise ValueError(f"preset is {preset!r}; it must be one of: {', '.join(_PRESETS)}")
        return dataclasses.replace(self, **_PRESETS[preset])

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values; ``from_json`` reads it back."""
        return dataclasses.asdict(self) | {"scales": list(self.scales)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ExtractionSettings":
        """Reads what ``to_json`` wrote; unknown keys raise TypeError."""
        return cls(**(values | {"scales": tuple(values["scales"])}))


# Measured by `python -m benchmarks.frontier`; docs/accuracy.md has the figures.
_PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"scales": (0.5, 0.7071, 1.0, 1.4142), "max_side": 1024, "max_features": 1000},
    "default": {name: getattr(ExtractionSettings, name) for name in ("scales", "max_side", "max_features")},
    "best": {"scales": (0.25, 0.3536, *DEFAULT_SCALES), "max_side": 1024, "max_features": 2000},
}
