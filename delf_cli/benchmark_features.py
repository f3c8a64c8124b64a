"""Extracts what `evaluate retrieval` and `calibrate` need: photos into a store, queries inside boxes, regions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from delf_cli import cropped_features
from delf_cli.report import Report
from delf_jax.errors import ImageError

if TYPE_CHECKING:
    import delf_jax.extractor
    from delf_jax.features import LocalFeatures
    from retrieval.evaluation.benchmark import Benchmark


def extract_into_store(
    extractor: "delf_jax.extractor.Extractor",
    photos: Sequence[str],
    store: str,
    report: Report,
    *,
    head: str | None,
) -> list[str]:
    """Extracts the photos that the store lacks. Returns the names of those it has then, in its order."""
    from delf_jax.job import extraction_job
    from delf_jax.store.reader import FeatureStore

    with report.progress("extracting") as advance:
        options = extraction_job.JobOptions(
            progress=lambda now: (
                advance(now.done + now.skipped + now.failed, now.total) if report.shows_progress else None
            )
        )
        done = extraction_job.run(extractor, photos, store, options=options, head=head)
    for path, reason in done.failed:
        report.failure("image", path, reason)
    wanted = set(photos)
    return [photo.path for photo in FeatureStore.open(store) if photo.path in wanted]


def extract_queries(
    extractor: "delf_jax.extractor.Extractor", benchmark: "Benchmark", report: Report
) -> "list[LocalFeatures]":
    """The features of every query, inside its box if it has one; empty for photos that cannot be read."""
    from delf_jax.features import LocalFeatures

    paths = [str(query.photo) for query in benchmark.queries]
    boxes = [None if query.box is None else cropped_features.round_box(query.box) for query in benchmark.queries]
    found = [LocalFeatures.empty((1, 1), extractor.dimension)] * len(paths)
    with report.progress("reading queries", "queries") as advance:
        stream = cropped_features.extract_inside_boxes(extractor, paths, boxes, as_in_whole=True)
        for done, (position, features) in enumerate(stream):
            if isinstance(features, ImageError):
                report.failure("query", paths[position], features.reason)
            else:
                found[position] = features
            advance(done + 1, len(paths))
    return found


def extract_regions(
    extractor: "delf_jax.extractor.Extractor", predictor_path: str, names: Sequence[str], report: Report
) -> "dict[str, list[LocalFeatures]]":
    """The features of each region that the predictor finds, by the name of its photo."""
    import localization

    predictor = localization.Predictor.open(predictor_path)
    parts: list[tuple[str, cropped_features.Box]] = []
    with report.progress("finding regions") as advance:
        for done, (name, found) in enumerate(predictor.localize_stream((name, name) for name in names)):
            if not isinstance(found, ImageError):
                parts += [(name, cropped_features.round_box(box[:4])) for box in found.boxes]
            advance(done + 1, len(names))
    kept: dict[str, list[LocalFeatures]] = {}
    with report.progress("extracting regions", "regions") as advance:
        stream = cropped_features.extract_inside_boxes(
            extractor, [name for name, _ in parts], [box for _, box in parts]
        )
        for done, (position, features) in enumerate(stream):
            if not isinstance(features, ImageError):
                kept.setdefault(parts[position][0], []).append(features)
            advance(done + 1, len(parts))
    return kept
