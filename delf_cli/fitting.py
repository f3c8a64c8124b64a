"""Fits the unlabelled parts of a head (PCA, foreground vector) to photos, for `pca` and for `extract --adapt`."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from delf_cli.report import Report
from delf_jax.errors import DelfError, ImageError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    import delf_jax.extraction.head
    import delf_jax.extraction.pca
    import delf_jax.extractor
    import localization.foreground.statistics

DIMENSION = 128


class Fitted(NamedTuple):
    """Running sums over the usable cells of some photos, how many photos those were, and which could not be used."""

    pca: "delf_jax.extraction.pca.PcaStatistics"
    foreground: "localization.foreground.statistics.Statistics"
    photos: int
    failed: list[ImageError]

    def direction(self) -> "Float[np.ndarray, ' c']":
        """The foreground direction w*, float32 [C]."""
        from localization.foreground import closed_form

        return closed_form.solve(self.foreground).w.astype("float32")


def fit(
    extractor: "delf_jax.extractor.Extractor", photos: Sequence[str], report: Report, *, workers: int | None = None
) -> Fitted:
    """Runs the encoder over the photos and sums up; a photo that cannot be used is left out.

    Scales above 1 are left out: they add cells, not content, and cost the most.

    Raises:
        DelfError: none of the photos could be used.
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
        raise DelfError(f"nothing to fit on, none of the photos could be used; the first: {failed[0]}")
    return Fitted(pca, foreground, count, failed)


def adapted_head(
    extractor: "delf_jax.extractor.Extractor", photos: Sequence[str], report: Report, *, workers: int | None = None
) -> "delf_jax.extraction.head.Head":
    """The extractor's head with PCA and foreground vector fitted to ``photos``."""
    fitted = fit(extractor, photos, report, workers=workers)
    before = extractor.head.pca
    return dataclasses.replace(
        extractor.head,
        pca=projection(fitted, DIMENSION if before is None else len(before.basis)),
        foreground=fitted.direction(),
        notes={"fitted_on": {"command": "delf-jax extract --adapt", "photos": fitted.photos}},
    )


def projection(fitted: Fitted, dimension: int) -> "delf_jax.extraction.pca.Pca":
    """The fitted PCA; DelfError where the photos are too few for it."""
    try:
        return fitted.pca.solve(dimension)
    except ValueError as error:
        raise DelfError(f"PCA: {error}") from error


def variance_kept(fitted: Fitted, projection: "delf_jax.extraction.pca.Pca") -> float:
    """Share of the variance of the unit features that the projection keeps."""
    mean = fitted.pca.total / fitted.pca.count
    return float(projection.variance.sum() / (1 - mean @ mean))
