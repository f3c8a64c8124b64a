"""`delf-jax search`: finds the photos of an index that show the same thing as a query photo."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_cli import cropped_features, input_photos, result_pictures
from delf_cli.options import ExtractionOptions, Photos, UsageError
from delf_cli.report import Report
from delf_jax.errors import ImageError

if TYPE_CHECKING:
    import delf_jax.extractor
    import delf_jax.features
    import retrieval
    import retrieval.verification.verify

_EMPTY = "no features to search for (the photo is empty or very small)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """Find the photos of an index that show the same thing as a query photo, with geometric proof.

    Model and settings come from the index, unless options say otherwise.

    Attributes:
        index: the index, as written by `delf-jax index`.
        photos: query photos, folders, globs or addresses; or none, with --features.
        features: search for every photo of this feature store, without reading photos or computing features.
        others: with --features, leave out the photo itself and files with the same bytes.
        top: number of results per query.
        first_stage: votes counts the nearest descriptors. asmk compares visual words; it needs an index made with
            --asmk.
        verify: number of photos per query whose geometry is verified.
        crop: foreground searches only for the largest object of the query, found by the foreground vector of the head.
        out: folder for a picture of every query, its best results, and the matches that prove them.
        ray: load the shards of the index on a Ray cluster. local starts a cluster on this machine, auto uses the one
            that runs here, HOST:PORT is the head node of another one. All nodes must see the index at the same path.
        replicas: number of processes that load each shard. The shard answers as long as one of them runs.
        json: print one JSON line per query.
    """

    index: Annotated[Positional[str], arg(metavar="INDEX")]
    photos: Photos
    features: Annotated[str | None, arg(metavar="STORE", help_behavior_hint="(default: query photos)")] = None
    others: bool = False
    top: int = 10
    first_stage: Literal["votes", "asmk"] = "votes"
    verify: int = 100
    crop: Literal["none", "foreground"] = "none"
    out: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="(default: no pictures)")] = None
    ray: Annotated[str | None, arg(metavar="local|auto|HOST:PORT", help_behavior_hint="(default: no cluster)")] = None
    replicas: int = 1
    extraction: ExtractionOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax search index query.jpg --top 5 --out found"

    def run(self, report: Report) -> None:
        """Searches for every query, in the given order. "No match" is an answer, not a failure."""
        for name, value in (("--top", self.top), ("--verify", self.verify), ("--replicas", self.replicas)):
            if value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        if self.replicas > 1 and self.ray is None:
            raise UsageError("--replicas needs --ray; say where the cluster is")
        self.extraction.check()
        if self.features is None:
            input_photos.require_names(self.photos)
            if self.others:
                raise UsageError("--others needs --features")
        elif self.photos or self.crop != "none" or self.extraction != ExtractionOptions():
            raise UsageError("--features takes all from the store: leave out query photos, --crop and how to extract")
        elif self.out is not None:
            raise UsageError("--out draws photos, which --features does not read; leave one of them out")
        with self._opened_index() as index:
            if self.first_stage == "asmk" and getattr(index, "inverted_file", None) is None:
                raise UsageError(
                    f"{self.index}: it has no visual words; add them with `delf-jax index --out INDEX --asmk CODEBOOK`"
                )
            if self.features is not None:
                self._search_stored(index, self.features, report)
            else:
                self._search(index, report)

    def _search_stored(self, index: "retrieval.SearchableIndex", path: str, report: Report) -> None:
        from delf_jax.store.reader import FeatureStore

        store = FeatureStore.open(path)
        if not len(store):
            raise UsageError(f"{path}: it has no photos; extract some with `delf-jax extract PHOTOS --out {path}`")
        answers = index.search_all(
            store, others=self.others, first_stage=self.first_stage, verify=self.verify, top=self.top
        )
        with report.progress("searching", "queries") as advance:
            for done, (query, result) in enumerate(answers, 1):
                self._report(query, result, _sentences(query, result), {}, report)
                advance(done, len(store))

    def _search(self, index: "retrieval.SearchableIndex", report: Report) -> None:
        queries = input_photos.find_paths(self.photos, report, kind="query")
        if not queries:
            return
        extractor = self.extraction.load(base=index.settings, head=index.head_path)
        index.require(extractor.fingerprint)
        files = self._picture_files(queries)
        boxes = self._boxes(extractor, queries, report)
        answers: dict[int, delf_jax.features.LocalFeatures | ImageError] = {}
        next_position = 0
        with report.progress("searching", "queries") as advance:
            for position, found in cropped_features.extract_inside_boxes(extractor, queries, boxes):
                answers[position] = found
                while next_position in answers:
                    features = answers.pop(next_position)
                    if isinstance(features, ImageError):
                        report.failure("query", queries[next_position], features.reason)
                    else:
                        query, file, box = queries[next_position], files[next_position], boxes[next_position]
                        with report.fails_alone("query", query):
                            self._answer(index, query, features, file, report, box=box)
                    next_position += 1
                    advance(next_position, len(queries))

    @contextlib.contextmanager
    def _opened_index(self) -> "Iterator[retrieval.SearchableIndex]":
        from delf_cli import environment

        environment.keep_memory()
        environment.start_jax()
        import retrieval
        from retrieval.indexing import manifest

        if self.ray is None:
            yield retrieval.open_index(self.index)
            return
        from delf_jax.job import ray_session

        if not manifest.is_sharded(Path(self.index)):
            manifest.read(Path(self.index))
            raise UsageError(
                f"{self.index}: this index is not in shards; leave out --ray, or build it again with --shards"
            )
        with (
            ray_session.connected(self.ray),
            retrieval.ShardedIndex.open(self.index, on_ray=True, replicas=self.replicas) as index,
        ):
            yield index

    def _boxes(
        self, extractor: "delf_jax.extractor.Extractor", queries: Sequence[str], report: Report
    ) -> "list[cropped_features.Box | None]":
        if self.crop == "none":
            return [None] * len(queries)
        with report.progress("cropping", "queries"):
            return cropped_features.foreground_boxes(extractor, queries)

    def _picture_files(self, queries: list[str]) -> list[str | None]:
        if self.out is None:
            return [None] * len(queries)
        os.makedirs(self.out, exist_ok=True)
        return [os.path.join(self.out, name) for name in map(result_pictures.FileNames().of, queries)]

    def _answer(
        self,
        index: "retrieval.SearchableIndex",
        query: str,
        features: "delf_jax.features.LocalFeatures",
        file: str | None,
        report: Report,
        *,
        box: cropped_features.Box | None,
    ) -> None:
        result = index.search(
            features,
            first_stage=self.first_stage,
            verify=self.verify,
            top=self.top,
        )
        lines = _sentences(query, result) if len(features) else [f"{query}: {_EMPTY}"]
        if file is not None:
            result_pictures.save(file, result_pictures.draw_results(query, features, index, result))
            lines.append(f"  picture: {file}")
        crop: dict[str, object] = {}
        if self.crop == "foreground":
            crop["crop"] = box
            if box is not None:
                lines.append(f"  searched only for the part from {box[0]},{box[1]} to {box[2]},{box[3]}")
        self._report(query, result, lines, crop, report)

    @staticmethod
    def _report(
        query: str, result: "retrieval.SearchResult", lines: list[str], more: dict[str, object], report: Report
    ) -> None:
        report.succeeded += 1
        accepts = result.acceptance
        record: dict[str, object] = {
            "query": query,
            "accepted": result.accepted,
            "threshold": accepts.threshold,
            "guarantee": accepts.guarantee,
            "calibration": None if accepts.calibration is None else accepts.calibration.to_json(),
            **more,
        }
        if result.lost:
            record["lost_shards"] = [{"shard": name, "error": reason} for name, reason in result.lost.items()]
            lines += [f"  without shard {name}: {reason}" for name, reason in result.lost.items()]
        record["results"] = [_record(found) for found in result.matches]
        report.result(record, lines)


def _record(found: "retrieval.verification.verify.Match") -> dict[str, object]:
    return {
        "image": found.image,
        "inliers": found.inliers,
        "log10_nfa": found.log10_nfa,
        "accepted": found.accepted,
        "confidence": found.confidence,
        "overlay": found.overlay,
        "evidence": found.evidence,
        "score": found.score,
    }


def _sentences(query: str, result: "retrieval.SearchResult") -> list[str]:
    lines = [f"{query}: {'match' if result.accepted else 'no match'}"]
    if result.matches and result.matches[0].log10_nfa is not None:
        lines.append(f"  the first is {result.matches[0].confidence}")
        lines.append(f"  limit: {result.acceptance.guarantee}")
    for found in result.matches:
        nfa = "" if found.log10_nfa is None else f"log10 NFA {found.log10_nfa:7.1f}"
        mark = "accepted" if found.accepted else "refused "
        overlay = f" (without {found.overlay} matches on an overlay)" if found.overlay else ""
        lines.append(f"  {mark}  {found.inliers:4d} inliers  {nfa}  {found.image}{overlay}")
    return lines
