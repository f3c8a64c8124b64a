"""`delf-jax evaluate retrieval`: the public benchmarks of instance search, by their authors' measures."""

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_cli import cropping
from delf_cli.options import ExtractionOptions, UsageError
from delf_cli.report import Report
from delf_jax.errors import ImageError

if TYPE_CHECKING:
    import delf_jax.extractor
    import retrieval
    from delf_jax.features import LocalFeatures
    from retrieval.evaluation.datasets import Benchmark
    from retrieval.evaluation.evaluation import Scores
    from retrieval.evaluation.rank_all import Ranking


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateRetrieval:
    """Measure search on a public benchmark, from its folder and ground truth as they are distributed.

    ROxford and RParis: Easy, Medium and Hard, mAP and mP@k with junk taken out, queries cropped to their boxes. Oxford,
    Paris, Holidays: mAP. UKBench: N-S score. Google Landmarks v2: mAP@100 (Public and Private) and GAP.
    docs/benchmarks.md says what each folder holds and what the numbers mean.

    Attributes:
        folder: the benchmark's photos and ground truth.
        dataset: which benchmark it is.
        features: feature store of the searched photos, made or completed as by `delf-jax extract`.
        distractors: stores or indices of photos that are wrong for every query, such as parts of ROxford's million.
        first_stage: votes of nearest descriptors, or asmk, word by word.
        codebook: visual words for asmk, as written by `delf-jax codebook` from other photos.
        kernel: of asmk; binary keeps a bit a dimension (ASMK*), float the residuals themselves (ASMK).
        idf: weight words by the square of their inverse document frequency.
        assignments: words that each descriptor of a query belongs to.
        regions: predictor of `delf-jax fit-localizer`; every searched photo is represented by itself and the boxes that
            it finds there (Detect-to-Retrieve's regional aggregation; asmk only).
        verify: photos whose geometry is checked per query; 0 ranks by the first stage alone.
        backend: of the index, for votes.
        strangers: ask those queries too that have no right answer, for GAP (gldv2 has 116 thousand).
        json: print one JSON line per task.
    """

    folder: Annotated[Positional[str], arg(metavar="FOLDER")]
    dataset: Literal["roxford5k", "rparis6k", "oxford5k", "paris6k", "gldv2", "holidays", "ukbench"]
    features: Annotated[str | None, arg(metavar="STORE", help_behavior_hint="(default: not kept)")] = None
    distractors: Annotated[tuple[str, ...], arg(metavar="STORE...", help_behavior_hint="(default: none)")] = ()
    first_stage: Literal["votes", "asmk"] = "votes"
    codebook: Annotated[str | None, arg(help_behavior_hint="(required for asmk)")] = None
    kernel: Literal["binary", "float"] = "binary"
    idf: bool = False
    assignments: int = 1
    regions: Annotated[str | None, arg(metavar="PREDICTOR", help_behavior_hint="(default: whole photos)")] = None
    verify: int = 100
    backend: Literal["auto", "scann", "exact"] = "auto"
    strangers: bool = False
    extraction: ExtractionOptions
    json: bool = False

    example: ClassVar[str] = (
        "delf-jax evaluate retrieval roxford5k/ --dataset roxford5k --features roxford5k_features --verify 100"
    )

    def run(self, report: Report) -> None:
        """Extracts what the store lacks, asks every query, and prints the measures."""
        self._check()
        self.extraction.check()
        from retrieval.evaluation import datasets, evaluation
        from retrieval.evaluation.rank_all import rank_all
        from retrieval.search import SearchSettings

        benchmark = datasets.read(self.dataset, Path(self.folder), strangers=self.strangers)
        extractor = self._extractor()
        with contextlib.ExitStack() as stack:
            store = self.features or os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "features")
            names = self._extract(extractor, benchmark, store, report)
            queries = self._queries(extractor, benchmark, report)
            regions = self._regions(extractor, names, report)
            shards = self._shards(store, names, regions, extractor.fingerprint)
            with report.progress("searching", "searches") as advance:
                ranked = rank_all(
                    queries,
                    shards,
                    first_stage=self.first_stage,
                    verify=self.verify,
                    settings=SearchSettings(assignments=self.assignments),
                    progress=advance,
                )
        places = {str(path): place for place, path in enumerate(benchmark.database)}
        ranked = [_in_database(one, [places[name] for name in names], len(places)) for one in ranked]
        for scores in evaluation.evaluate(benchmark, ranked):
            report.succeeded += 1
            report.result(self._record(scores, len(names)), _sentence(self.dataset, scores))

    def _extractor(self) -> "delf_jax.extractor.Extractor":
        """That of the store if there is one, with what was given in place of its settings."""
        from delf_jax.store.reader import FeatureStore

        if self.features is None or not os.path.exists(self.features):
            return self.extraction.load()
        store = FeatureStore.open(self.features)
        return self.extraction.load(base=store.settings, head=store.head_path)

    def _check(self) -> None:
        if self.verify < 0:
            raise UsageError(f"--verify is {self.verify}; it must be at least 0")
        if self.assignments < 1:
            raise UsageError(f"--assignments is {self.assignments}; it must be at least 1")
        if self.first_stage == "asmk" and self.codebook is None:
            raise UsageError("--first-stage asmk needs --codebook; make one of other photos with `delf-jax codebook`")
        given = [name for name in ("codebook", "regions") if getattr(self, name) is not None]
        given += [name for name in ("idf",) if self.idf]
        if self.first_stage == "votes" and given:
            raise UsageError(f"--{given[0]} is for --first-stage asmk; add that, or leave it out")
        if self.strangers and self.dataset != "gldv2":
            raise UsageError(f"--strangers: {self.dataset} has no query without a right answer; leave it out")

    def _extract(
        self, extractor: "delf_jax.extractor.Extractor", benchmark: "Benchmark", store: str, report: Report
    ) -> list[str]:
        """Completes the store, and gives the names of the benchmark's photos that it has, in the store's order."""
        from delf_jax.job import extraction_job
        from delf_jax.store.reader import FeatureStore

        photos = [str(path) for path in benchmark.database]
        with report.progress("extracting") as advance:
            done = extraction_job.run(
                extractor,
                photos,
                store,
                progress=lambda now: (
                    advance(now.done + now.skipped + now.failed, now.total) if report.watched else None
                ),
                head=self.extraction.head,
            )
        for path, reason in done.failed:
            report.failure("image", path, reason)
        wanted = set(photos)
        return [photo.path for photo in FeatureStore.open(store) if photo.path in wanted]

    def _queries(
        self, extractor: "delf_jax.extractor.Extractor", benchmark: "Benchmark", report: Report
    ) -> "list[LocalFeatures]":
        from delf_jax.features import LocalFeatures

        paths = [str(query.photo) for query in benchmark.queries]
        boxes = [None if query.box is None else cropping.whole(query.box) for query in benchmark.queries]
        found = [LocalFeatures.empty((1, 1), extractor.dimension)] * len(paths)
        with report.progress("reading queries", "queries") as advance:
            stream = cropping.stream(extractor, paths, boxes, as_in_whole=True)
            for done, (position, features) in enumerate(stream):
                if isinstance(features, ImageError):
                    report.failure("query", paths[position], features.reason)
                else:
                    found[position] = features
                advance(done + 1, len(paths))
        return found

    def _regions(
        self, extractor: "delf_jax.extractor.Extractor", names: Sequence[str], report: Report
    ) -> "dict[str, list[LocalFeatures]]":
        """Features of the parts of each photo that the predictor finds."""
        if self.regions is None:
            return {}
        import localization

        predictor = localization.Predictor.open(self.regions)
        parts: list[tuple[str, cropping.Box]] = []
        with report.progress("finding regions") as advance:
            for done, (name, found) in enumerate(predictor.localize_stream((name, name) for name in names)):
                if not isinstance(found, ImageError):
                    parts += [(name, cropping.whole(box[:4])) for box in found.boxes]
                advance(done + 1, len(names))
        kept: dict[str, list[LocalFeatures]] = {}
        with report.progress("extracting regions", "regions") as advance:
            stream = cropping.stream(extractor, [name for name, _ in parts], [box for _, box in parts])
            for done, (position, features) in enumerate(stream):
                if not isinstance(features, ImageError):
                    kept.setdefault(parts[position][0], []).append(features)
                advance(done + 1, len(parts))
        return kept

    def _shards(
        self, store: str, names: Sequence[str], regions: "Mapping[str, list[LocalFeatures]]", fingerprint: str
    ) -> "list[Callable[[], retrieval.Index]]":
        """Opens the index of the searched photos, which stays, and those of distractors, which do not."""
        import retrieval
        from delf_jax.store.reader import FeatureStore
        from retrieval import asmk
        from retrieval.indexing import manifest

        codebook = None if self.codebook is None else asmk.Codebook.open(self.codebook)
        kernel = asmk.Kernel(binary=self.kernel == "binary", idf=self.idf)

        def aggregated(index: "retrieval.Index") -> "retrieval.Index":
            if codebook is not None:
                index.aggregate(codebook, kernel=kernel, regions=regions)
            return index

        def distractors(place: str) -> "retrieval.Index":
            if manifest.is_index(Path(place)):
                # Visual words are for this evaluation alone, and not for the folder.
                index = retrieval.Index.open(place, read_only=True)
            else:
                index = retrieval.Index.build(FeatureStore.open(place), backend=self.backend)
            index.require(fingerprint)
            return aggregated(index)

        opened, wanted = FeatureStore.open(store), set(names)
        own = aggregated(
            retrieval.Index.build(
                ((photo.path, photo.features) for photo in opened if photo.path in wanted),
                backend=self.backend,
                settings=opened.settings,
                fingerprint=opened.fingerprint,
                head_path=opened.head_path,
            )
        )
        return [lambda: own, *(functools.partial(distractors, place) for place in self.distractors)]

    def _record(self, scores: "Scores", photos: int) -> dict[str, Any]:
        measured = dataclasses.asdict(scores)
        depths = {f"precision_at_{k}": value for k, value in measured.pop("precision_at").items()}
        how = {"first_stage": self.first_stage, "verify": self.verify, "photos": photos}
        return {"dataset": self.dataset, "task": scores.task, **how, **measured, **depths}


def _in_database(ranked: "Ranking", places: Sequence[int], photos: int) -> "Ranking":
    """Places in the index as places in the database: some photos may have failed; distractors come after all."""
    import numpy as np

    mapped = np.array([*places], np.int64)
    beyond = ranked.photos >= len(mapped)
    inside = mapped[np.where(beyond, 0, ranked.photos)] if len(mapped) else ranked.photos
    return dataclasses.replace(ranked, photos=np.where(beyond, ranked.photos - len(mapped) + photos, inside))


def _sentence(dataset: str, scores: "Scores") -> str:
    """The measures that the benchmark's authors report."""
    name = f"{dataset} {scores.task}".strip()
    if scores.kentucky is not None:
        return f"{name}: N-S score {scores.kentucky:.3f} of 4 ({scores.queries} queries)"
    if dataset == "gldv2":
        figures = f"mAP@100 {100 * scores.map_at_100:.2f}, GAP {100 * scores.gap:.2f}, top-1 {100 * scores.top1:.1f}"
    else:
        depths = "".join(f", mP@{k} {100 * value:.1f}" for k, value in scores.precision_at.items())
        figures = f"mAP {100 * scores.map:.2f}{depths if dataset.startswith('r') else ''}"
    return f"{name}: {figures} ({scores.queries} queries)"
