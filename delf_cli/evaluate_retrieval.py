"""`delf-jax evaluate retrieval`: accuracy of search on the public benchmarks, with their official measures."""

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_cli import benchmark_features
from delf_cli.options import ExtractionOptions, UsageError
from delf_cli.report import Report

if TYPE_CHECKING:
    import delf_jax.extractor
    import retrieval
    from delf_jax.features import LocalFeatures
    from retrieval.evaluation.evaluation import Scores
    from retrieval.evaluation.rank_all import Ranking


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateRetrieval:
    """Measure search on a public benchmark, with its photos and ground truth as they are published.

    ROxford and RParis: mAP and mP@k for Easy, Medium and Hard, without junk, queries cropped to their boxes. Oxford,
    Paris and Holidays: mAP. UKBench: N-S score. Google Landmarks v2: mAP@100 (Public and Private) and GAP.
    docs/benchmarks.md describes each folder and each number.

    Attributes:
        folder: folder with the photos and the ground truth of the benchmark.
        dataset: name of the benchmark.
        features: feature store of the searched photos. It is made or completed as `delf-jax extract` does.
        distractors: stores or indexes of photos that are wrong for every query, such as parts of the ROxford 1M set.
        first_stage: votes counts the nearest descriptors, asmk compares visual words.
        codebook: visual words for asmk, as written by `delf-jax codebook` from other photos.
        kernel: kernel of asmk. binary stores one bit per dimension (ASMK*), float stores the residuals (ASMK).
        idf: weight visual words by the square of their inverse document frequency.
        assignments: number of visual words to which each descriptor of a query is assigned.
        regions: predictor, as written by `delf-jax fit-localizer`. Each searched photo is then represented by itself
            and by the boxes found in it (regional aggregation of Detect-to-Retrieve; only with asmk).
        verify: number of photos per query whose geometry is verified; 0 ranks by the first stage only.
        backend: backend of the index for votes.
        strangers: also use the queries without a right answer, for GAP (gldv2 has 116 thousand of them).
        json: print one JSON line per task.
    """

    folder: Annotated[Positional[str], arg(metavar="FOLDER")]
    dataset: Literal["roxford5k", "rparis6k", "oxford5k", "paris6k", "gldv2", "holidays", "ukbench"]
    features: Annotated[str | None, arg(metavar="STORE", help_behavior_hint="(default: a temporary store)")] = None
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
        """Extracts the photos that the store lacks, searches for every query, and prints the measures."""
        self._check()
        self.extraction.check()
        from retrieval.evaluation import datasets, evaluation
        from retrieval.evaluation.rank_all import rank_all
        from retrieval.search import SearchSettings

        benchmark = datasets.read(self.dataset, Path(self.folder), strangers=self.strangers)
        extractor = self._extractor()
        with contextlib.ExitStack() as stack:
            store = self.features or os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "features")
            photos = [str(path) for path in benchmark.database]
            names = benchmark_features.extract_into_store(extractor, photos, store, report, head=self.extraction.head)
            queries = benchmark_features.extract_queries(extractor, benchmark, report)
            regions = {}
            if self.regions is not None:
                regions = benchmark_features.extract_regions(extractor, self.regions, names, report)
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
        """The extractor with the settings of the store, if there is one, changed by the options that were given."""
        from delf_jax.store.reader import FeatureStore

        if self.features is None or not os.path.exists(self.features):
            return self.extraction.load()
        store = FeatureStore.open(self.features)
        return self.extraction.load(base=store.settings, head=store.head_path)

    def _check(self) -> None:
        from retrieval.indexing import manifest

        if self.verify < 0:
            raise UsageError(f"--verify is {self.verify}; it must be at least 0")
        if self.assignments < 1:
            raise UsageError(f"--assignments is {self.assignments}; it must be at least 1")
        if self.first_stage == "asmk" and self.codebook is None:
            raise UsageError("--first-stage asmk needs --codebook; make one from other photos with `delf-jax codebook`")
        given = [name for name in ("codebook", "regions") if getattr(self, name) is not None]
        given += [name for name in ("idf",) if self.idf]
        if self.first_stage == "votes" and given:
            raise UsageError(f"--{given[0]} is for --first-stage asmk; give that too, or leave it out")
        if sharded := [place for place in self.distractors if manifest.is_sharded(Path(place))]:
            raise UsageError(f"--distractors {sharded[0]}: this index is in shards; give its feature store instead")
        if self.strangers and self.dataset != "gldv2":
            raise UsageError(f"--strangers: {self.dataset} has no queries without a right answer; leave it out")

    def _shards(
        self, store: str, names: Sequence[str], regions: "Mapping[str, list[LocalFeatures]]", fingerprint: str
    ) -> "list[Callable[[], retrieval.Index]]":
        """Functions that open the index of the searched photos, which stays in memory, and those of the distractors."""
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
    """Turns places in the index into places in the database, where photos may have failed. Distractors come last."""
    import numpy as np

    mapped = np.array([*places], np.int64)
    beyond = ranked.photos >= len(mapped)
    inside = mapped[np.where(beyond, 0, ranked.photos)] if len(mapped) else ranked.photos
    return dataclasses.replace(ranked, photos=np.where(beyond, ranked.photos - len(mapped) + photos, inside))


def _sentence(dataset: str, scores: "Scores") -> str:
    """The measures that the authors of the benchmark report."""
    name = f"{dataset} {scores.task}".strip()
    if scores.kentucky is not None:
        return f"{name}: N-S score {scores.kentucky:.3f} of 4 ({scores.queries} queries)"
    if dataset == "gldv2":
        figures = f"mAP@100 {100 * scores.map_at_100:.2f}, GAP {100 * scores.gap:.2f}, top-1 {100 * scores.top1:.1f}"
    else:
        depths = "".join(f", mP@{k} {100 * value:.1f}" for k, value in scores.precision_at.items())
        figures = f"mAP {100 * scores.map:.2f}{depths if dataset.startswith('r') else ''}"
    return f"{name}: {figures} ({scores.queries} queries)"
