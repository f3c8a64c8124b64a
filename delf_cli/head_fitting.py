"""Fits the PCA and the foreground vector of a head to photos without labels, for `pca` and `extract --adapt`."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from delf_cli.report import Report
from delf_jax.errors import DelfError, ImageError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    import delf_jax.extraction.head
    import delf_jax.extraction.pca
    import delf_jax.extractor
    import localization.foreground.statistics

_T = TypeVar("_T")

DEFAULT_DIMENSION = 128
# Their cells are many times more than the PCA needs. So a million photos are not read only to fit it.
_PHOTOS = 300


class HeadStatistics(NamedTuple):
    """Sums over the valid cells of some photos, the number of these photos, and the errors of the others."""

    pca: "delf_jax.extraction.pca.PcaStatistics"
    foreground: "localization.foreground.statistics.Statistics"
    photos: int
    failed: list[ImageError]

    def direction(self) -> "Float[np.ndarray, ' c']":
        """The foreground direction w*, float32 [C]."""
        from localization.foreground import closed_form

        return closed_form.solve(self.foreground).w.astype("float32")


def evenly_spaced(photos: Sequence[_T], most: int = _PHOTOS) -> Sequence[_T]:
    """At most so many of the photos, in even steps: 300 are enough to fit a head.

    >>> list(evenly_spaced(range(1000)))[:4]
    [0, 4, 8, 12]
    """
    return photos[:: max(1, math.ceil(len(photos) / most))]


def gather_statistics(
    extractor: "delf_jax.extractor.Extractor", photos: Sequence[str], report: Report, *, workers: int | None = None
) -> HeadStatistics:
    """Runs the encoder over the photos and sums up their features. Photos that cannot be used are left out.

    Scales above 1 are left out: they cost the most and add cells, but no content.

    Raises:
        DelfError: no photo could be used.
    """
    from delf_jax.extraction.pca import PcaStatistics
    from localization.foreground.statistics import Statistics

    layer = extractor.head.layer
    scales = [scale for scale in extractor.settings.scales if scale <= 1] or [1.0]
    stream = extractor.dense_stream(((path, path) for path in photos), name=layer, scales=scales, workers=workers)
    pca, foreground, count = None, None, 0
    failed: list[ImageError] = []
    with report.progress("fitting") as advance:
        for done, (_, maps) in enumerate(stream, 1):
            advance(done, len(photos))
            if isinstance(maps, ImageError):
                failed.append(maps)
                continue
            for dense, usable in maps:
                projected = PcaStatistics.of(dense[usable])
                weighed = Statistics.of_photo(dense, where=usable)
                pca = projected if pca is None else pca + projected
                foreground = weighed if foreground is None else foreground + weighed
            count += 1
    if pca is None or foreground is None:
        raise DelfError(f"cannot fit, because no photo could be used; the first error: {failed[0]}")
    return HeadStatistics(pca, foreground, count, failed)


def fit_head(
    extractor: "delf_jax.extractor.Extractor", photos: Sequence[str], report: Report, *, workers: int | None = None
) -> "delf_jax.extraction.head.Head":
    """The extractor's head, with PCA and foreground vector fitted to ``photos``."""
    fitted = gather_statistics(extractor, photos, report, workers=workers)
    before = extractor.head.pca
    return dataclasses.replace(
        extractor.head,
        pca=solve_pca(fitted, DEFAULT_DIMENSION if before is None else len(before.basis)),
        foreground=fitted.direction(),
        calibrations=(),
        notes={"fitted_on": {"command": "delf-jax extract --adapt", "photos": fitted.photos}},
    )


def solve_pca(fitted: HeadStatistics, dimension: int) -> "delf_jax.extraction.pca.Pca":
    """The fitted PCA; DelfError if there are too few photos for it."""
    try:
        return fitted.pca.solve(dimension)
    except ValueError as error:
        raise DelfError(f"PCA: {error}") from error


def variance_kept(fitted: HeadStatistics, projection: "delf_jax.extraction.pca.Pca") -> float:
    """Share of the variance of the unit features that the projection keeps."""
    mean = fitted.pca.total / fitted.pca.count
    return float(projection.variance.sum() / (1 - mean @ mean))
