"""`delf-jax calibrate`: chooses when an index accepts a match, on photos that show nothing of it."""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import Positional, arg

from delf_cli import benchmark_features, input_photos
from delf_cli.options import ExtractionOptions, UsageError
from delf_cli.report import Report

if TYPE_CHECKING:
    import retrieval.calibration
    from delf_jax.extraction.calibration import Calibration

_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Choose when an index accepts a match, on strangers: photos that show nothing of the index.

    You say how many wrong acceptances in 1000 queries you can bear. The strangers prove that there are no more. They
    must be like the photos that you will search for, and independent: of ten photos of one scene, take one. About 3000
    strangers prove 1 in 1000, 300 prove 10. The index keeps the threshold and the bound, and `delf-jax search` shows
    them. Model and settings come from the index.

    Attributes:
        index: the index, as written by `delf-jax index`.
        strangers: photos, folders, globs or addresses. None may show anything that is in the index.
        wrong: bearable wrong acceptances in 1000 queries.
        confidence: how sure the bound must be, from 0.5 to below 1.
        features: feature store of the strangers. It is made or completed as `delf-jax extract` does.
        json: print one JSON line.
    """

    index: Annotated[Positional[str], arg(metavar="INDEX")]
    strangers: Annotated[tuple[str, ...], arg(metavar="PHOTOS...")]
    wrong: float = 1.0
    confidence: float = 0.95
    features: Annotated[str | None, arg(metavar="STORE", help_behavior_hint="(default: a temporary store)")] = None
    json: bool = False

    example: ClassVar[str] = "delf-jax calibrate index --strangers other_photos/ --wrong 1"

    def run(self, report: Report) -> None:
        """Extracts the strangers, searches for each, and writes the thresholds into the index."""
        if not 0 < self.wrong < 1000:
            raise UsageError(f"--wrong is {self.wrong:g}; it must be above 0 and below 1000")
        if not 0.5 <= self.confidence < 1:
            raise UsageError(f"--confidence is {self.confidence:g}; it must be at least 0.5 and below 1")
        input_photos.require_names(self.strangers)
        paths = input_photos.find_paths(self.strangers, report)
        if not paths:
            return
        from delf_cli import environment

        environment.start_jax()
        import retrieval
        from retrieval import calibration
        from retrieval.verification.risk_control import strangers_needed

        bound = {"wrong_per_thousand": self.wrong, "confidence": self.confidence}
        if len(paths) < strangers_needed(self.wrong / 1000, confidence=self.confidence):
            raise UsageError(f"{calibration.too_few(len(paths), **bound)}; give more, or a larger --wrong")
        index = retrieval.open_index(self.index)
        if both := set(paths) & set(index.names):
            raise UsageError(f"{min(both)}: this stranger is in the index; leave it out")
        found = self._scores(index, paths, report)
        chosen = calibration.calibrated(index, found, **bound)
        index.calibrate(chosen)
        report.succeeded += len(found)
        surest = sorted(found, key=lambda one: one.log10_nfa)[:_SHOWN]
        record = {
            "index": self.index,
            "guarantee": chosen.in_words(len(index)),
            "calibration": chosen.to_json(),
            "surest_strangers": [dataclasses.asdict(one) for one in surest],
        }
        report.result(record, _sentences(self.index, chosen, surest, len(index)))

    def _scores(
        self, index: "retrieval.SearchableIndex", paths: Sequence[str], report: Report
    ) -> "list[retrieval.calibration.StrangerScore]":
        from delf_jax.store.reader import FeatureStore
        from retrieval import calibration

        head = None if index.head_path is None else os.fspath(index.head_path)
        extractor = ExtractionOptions().load(base=index.settings, head=head)
        index.require(extractor.fingerprint)
        with contextlib.ExitStack() as stack:
            store = self.features or os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "features")
            wanted = set(benchmark_features.extract_into_store(extractor, paths, store, report, head=head))
            photos = ((photo.path, photo.features) for photo in FeatureStore.open(store) if photo.path in wanted)
            found: list[calibration.StrangerScore] = []
            with report.progress("searching", "strangers") as advance:
                for one in calibration.scores(index, photos):
                    found.append(one)
                    advance(len(found), len(wanted))
        return found


def _sentences(
    index: str, chosen: "Calibration", surest: "Sequence[retrieval.calibration.StrangerScore]", photos: int
) -> list[str]:
    lines = [f"{index}: {chosen.in_words(photos)}"]
    limits = [f"with fewer than {count} features" for count in chosen.feature_counts]
    limits.append("with more" if limits else "")
    lines += [
        f"  accepted is log10 NFA of at most {threshold:.2f} {limit}".rstrip()
        for threshold, limit in zip(chosen.thresholds, limits, strict=True)
    ]
    lines.append("  the surest strangers; if one shows something of the index, leave it out and calibrate again:")
    lines += [f"    log10 NFA {one.log10_nfa:7.2f}  {one.name}  and  {one.image}" for one in surest]
    return lines
