"""`delf-jax descriptors`: learns the projection of descriptors from photos that show the same places."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import arg

from delf_cli import head_fitting, input_photos, labels
from delf_cli.options import ExtractionOptions, Photos, UsageError
from delf_cli.report import Report
from delf_jax.errors import DelfError, ModelError
from delf_jax.files.changer import only_changer

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Int

    import delf_jax.extractor
    from delf_jax.extraction.head import Head
    from delf_jax.extraction.pca import Pca
    from delf_jax.features import LocalFeatures
    from delf_jax.store.reader import FeatureStore
    from retrieval.grouping.pair_log import PairLog
    from retrieval.grouping.proved_pairs import ProvedPair

FEATURES, LOG = "features", "verified.jsonl"
# Their features take 2.4 GB of memory.
_PHOTOS = 2000
_STRONGEST = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Descriptors:
    """Learn the projection of descriptors from verified matches of photos, and write a head file.

    Photos that show the same place are found and proved, without labels. Their transforms say which features see the
    same spot, and what changes between such features counts less in the new descriptors: learned whitening. The other
    parts of the head, such as a trained attention, stay as they are, but no calibration does.

    Attributes:
        paths: photos, folders, globs or addresses; several photos of each of many places. At most 2000 are used, in
            even steps.
        out: the head file to write. Other subcommands take it with --head.
        work: folder for the features (2 MB a photo) and the verified pairs. A run that was stopped goes on there; it
            can be deleted afterwards.
        labels: none; or names of the places, so that photos of different names never teach: folders takes the name of
            each photo's folder, a CSV file has the columns file and label.
        dimension: number of dimensions that descriptors keep.
        neighbours: number of photos that each photo is compared with.
        json: print one JSON line with the counts.
    """

    paths: Photos
    out: Annotated[str, arg(metavar="HEAD")]
    work: Annotated[str, arg(metavar="DIR")]
    labels: Annotated[str, arg(metavar="none|folders|FILE")] = "none"
    dimension: int = head_fitting.DEFAULT_DIMENSION
    neighbours: int = 10
    extraction: ExtractionOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax descriptors photos/ --out head.safetensors --work descriptors"

    def run(self, report: Report) -> None:
        """Extracts, verifies, fits, and writes the head."""
        for name, value in (("--dimension", self.dimension), ("--neighbours", self.neighbours)):
            if value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        labels.check(self.labels, clusters=False)
        paths = head_fitting.evenly_spaced(input_photos.find_paths(self.paths, report), _PHOTOS)
        if not paths:
            return
        with only_changer(self.out, ModelError):  # it may also be the head that is read
            self._learn(paths, report)

    def _learn(self, paths: Sequence[str], report: Report) -> None:
        import delf_jax

        extractor = self.extraction.load()
        base = extractor.head
        if base.autoencoder is not None:
            raise UsageError("this head uses an autoencoder in place of a projection; choose another head")
        # The same features, before they are projected.
        plain = dataclasses.replace(base, pca=None)
        settings = extractor.settings
        extractor = delf_jax.load(settings.model, settings=settings, head=plain, batch_size=self.extraction.batch_size)
        store = self._extracted(extractor, paths, Path(self.work) / FEATURES, report)
        # The folder may have more photos, from an earlier run.
        given = set(paths)
        photos = {name: one for name, one in in_memory(store).items() if name in given}
        projection, counts = self._fitted(photos, extractor, base, report)
        head = dataclasses.replace(
            base,
            pca=projection,
            whiten=False,
            calibrations=(),
            notes=base.notes | {"descriptors": {"command": "delf-jax descriptors", **counts}},
        )
        head.save(self.out)
        record = {"head": self.out, "dimension": self.dimension, **counts}
        report.result(
            record,
            f"{self.out}: {self.dimension} dimensions, learned from {counts['photos']} photos: "
            f"{counts['pairs']} matches, pairs of photos: {counts['photo_pairs']}",
        )

    def _extracted(
        self, extractor: "delf_jax.extractor.Extractor", paths: Sequence[str], out: Path, report: Report
    ) -> "FeatureStore":
        from delf_jax.job import extraction_job
        from delf_jax.store.reader import FeatureStore

        with report.progress("extracting") as advance:

            def show(progress: extraction_job.Progress) -> None:
                advance(progress.finished, progress.total)

            options = extraction_job.JobOptions(progress=show if report.shows_progress else None)
            result = extraction_job.run(extractor, paths, out, options=options)
        report.succeeded += result.done + result.skipped
        for path, reason in result.failed:
            report.failure("image", path, reason)
        return FeatureStore.open(out)

    def _fitted(
        self,
        photos: "Mapping[str, LocalFeatures]",
        extractor: "delf_jax.extractor.Extractor",
        base: "Head",
        report: Report,
    ) -> "tuple[Pca, Mapping[str, int]]":
        """The projection, and how many photos, pairs of photos and pairs of features it was learned from."""
        from delf_jax.extraction.pca import PcaStatistics
        from delf_jax.training.descriptors.whitening import PairStatistics, solve
        from retrieval.grouping.pair_log import PairLog

        channels, max_side = extractor.dimension, extractor.settings.max_side
        features, pairs, photo_pairs = PcaStatistics.zero(channels), PairStatistics.zero(channels), 0
        for one in photos.values():
            features += PcaStatistics.of(one.descriptors)
        label_of = None if self.labels == "none" else labels.given(self.labels, list(photos))
        with contextlib.closing(PairLog(Path(self.work) / LOG)) as log, report.progress("verifying") as advance:
            found = matching_features(
                photos, base, max_side=max_side, neighbours=self.neighbours, log=log, advance=advance
            )
            for pair, rows in found:
                if label_of is None or label_of.get(pair.a) == label_of.get(pair.b, ""):
                    a, b = photos[pair.a].descriptors, photos[pair.b].descriptors
                    pairs += PairStatistics.of(a[rows[:, 0]], b[rows[:, 1]])
                    photo_pairs += 1
        try:
            projection = solve(features, pairs, self.dimension)
        except ValueError as error:
            raise DelfError(f"descriptors: {error}") from error
        return projection, {"photos": len(photos), "photo_pairs": photo_pairs, "pairs": pairs.count}


def in_memory(store: "FeatureStore") -> "dict[str, LocalFeatures]":
    """The features of all photos by their names, descriptors in float16."""
    return {
        photo.path: dataclasses.replace(photo.features, descriptors=photo.features.descriptors.astype("float16"))
        for photo in store
    }


def matching_features(
    photos: "Mapping[str, LocalFeatures]",
    base: "Head",
    *,
    max_side: int,
    neighbours: int,
    log: "PairLog",
    advance: Callable[[int, int], None],
) -> "Iterator[tuple[ProvedPair, Int[np.ndarray, 'm 2']]]":
    """The proved pairs of photos, and for each the rows of features that see the same spot.

    Args:
        photos: features before they are projected.
        base: the head whose projection finds and proves the pairs.
        max_side, neighbours, log, advance: as for ``proved_pairs``.
    """
    from delf_jax.training.descriptors.correspondences import correspondences
    from retrieval.grouping.proved_pairs import proved_pairs
    from retrieval.indexing.index import Index
    from retrieval.verification.verify import domain_of

    @functools.cache
    def projected(name: str) -> "LocalFeatures":
        photo = photos[name]
        if base.pca is None:
            return photo
        return dataclasses.replace(photo, descriptors=base.pca.descriptors(photo.descriptors, whiten=base.whiten))

    # The strongest features find likely pairs, in an exact search: the same ones in every run.
    index = Index.build(((name, projected(name).take(slice(_STRONGEST))) for name in sorted(photos)), backend="exact")
    for pair in proved_pairs(index, projected, max_side=max_side, neighbours=neighbours, log=log, advance=advance):
        a, b = photos[pair.a], photos[pair.b]
        yield pair, correspondences(a, b, pair.transform, pixel=domain_of(b, max_side).pixel)
