"""`delf-jax index`: a feature store to a search index."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_jax.command.options import UsageError
from delf_jax.command.report import Report

if TYPE_CHECKING:
    import retrieval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Build a search index from a feature store, add a store to an index, or take photos out of it.

    Attributes:
        store: feature store, as written by `delf-jax extract`.
        out: the index, a folder.
        backend: scann is the fast one, where it has a wheel; exact runs everywhere; auto takes the best at hand.
        add: add the store's photos to the index at --out instead of building it anew.
        asmk: codebook of `delf-jax codebook`; the index can then be searched word by word too (ASMK*).
        remove: names of photos to take out of the index at --out, as they were extracted.
        json: print one JSON line with the counts.
    """

    store: Annotated[
        Positional[str | None], arg(metavar="STORE", help_behavior_hint="(required unless --remove or --asmk)")
    ] = None
    out: Annotated[str, arg(metavar="INDEX")]
    backend: Literal["auto", "scann", "exact"] = "auto"
    add: bool = False
    asmk: Annotated[str | None, arg(metavar="CODEBOOK", help_behavior_hint="(default: none)")] = None
    remove: Annotated[tuple[str, ...], arg(metavar="PHOTO...", help_behavior_hint="(default: none)")] = ()
    json: bool = False

    example: ClassVar[str] = "delf-jax index features --out index"

    def run(self, report: Report) -> None:
        """Builds or changes the index, and saves it whole or not at all."""
        if self.store is None and not self.remove and self.asmk is None:
            raise UsageError("index needs a feature store: name the one that `delf-jax extract` wrote")
        if self.store is None and self.add:
            raise UsageError("--add needs the feature store whose photos to add")
        if self.store is not None and self.remove and not self.add:
            raise UsageError("--remove takes photos out of the index at --out; leave the store out, or say --add too")
        if self.backend != "auto" and (self.add or self.store is None):
            raise UsageError("--backend is chosen when an index is built; leave it out with --add and --remove")
        index = self._index(report)
        self._aggregate(index, report)
        index.save(self.out)
        report.succeeded += 1
        record = {
            "index": self.out,
            "photos": len(index),
            "features": index.feature_count,
            "dimension": index.dimension,
            "backend": index.backend,
            "words": 0 if index.inverted_file is None else len(index.inverted_file.codebook),
        }
        report.result(
            record,
            f"{self.out}: {len(index)} photos, {index.feature_count} features of {index.dimension} dimensions, "
            f"backend {index.backend}",
        )

    def _index(self, report: Report) -> "retrieval.Index":
        from delf_jax.command import environment

        environment.start_jax()
        import retrieval
        from delf_jax.store import FeatureStore

        store = None if self.store is None else FeatureStore.open(self.store)
        if store is not None and not self.add:
            with report.progress("indexing"):
                return retrieval.Index.build(store, backend=self.backend)
        index = retrieval.Index.open(self.out)
        if self.remove:
            index.remove(self.remove)
        if store is not None:
            index.add(store)
        return index

    def _aggregate(self, index: "retrieval.Index", report: Report) -> None:
        if self.asmk is None:
            return
        from retrieval import asmk

        codebook = asmk.Codebook.open(self.asmk)
        with report.progress("aggregating"):
            index.aggregate(codebook)
