"""`delf-jax index`: builds a search index from a feature store, or changes an index."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_cli.options import UsageError
from delf_cli.report import Report
from delf_jax.errors import DelfError, SearchIndexError
from delf_jax.files.changer import only_changer

if TYPE_CHECKING:
    import delf_jax.store.reader
    import retrieval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Build a search index from a feature store, add photos to an index, or remove photos from it.

    An index in shards is searched like any other: in one process, or in many with `delf-jax search --ray`.

    Attributes:
        store: feature store, as written by `delf-jax extract`.
        out: folder of the index.
        backend: scann is fast but not available on every system. exact runs everywhere. auto takes scann if it can.
        shards: number of shards. Each shard is an index of its own; while building, only one is in memory.
        add: add the photos of the store to the index at --out.
        asmk: codebook, as written by `delf-jax codebook`. The index then also supports search by visual words (ASMK*).
        remove: photos to remove from the index at --out: their paths, as they are now or as the store has them.
        rebuild: build the damaged shards of the index at --out again, from the photos that no other shard has.
        json: print one JSON line with the counts.
    """

    store: Annotated[
        Positional[str | None], arg(metavar="STORE", help_behavior_hint="(required unless --remove or --asmk)")
    ] = None
    out: Annotated[str, arg(metavar="INDEX")]
    backend: Literal["auto", "scann", "exact"] = "auto"
    shards: Annotated[int | None, arg(help_behavior_hint="(default: one index)")] = None
    add: bool = False
    asmk: Annotated[str | None, arg(metavar="CODEBOOK", help_behavior_hint="(default: none)")] = None
    remove: Annotated[tuple[str, ...], arg(metavar="PHOTO...", help_behavior_hint="(default: none)")] = ()
    rebuild: bool = False
    json: bool = False

    example: ClassVar[str] = "delf-jax index features --out index"

    def run(self, report: Report) -> None:
        """Builds or changes the index, and saves it completely or not at all."""
        if self.store is None and not self.remove and self.asmk is None:
            raise UsageError("index needs a feature store: name one that `delf-jax extract` has written")
        if self.store is None and self.add:
            raise UsageError("--add needs a feature store: name the one whose photos are added")
        if self.store is not None and self.remove and not self.add:
            raise UsageError(
                "--remove changes the index at --out and needs no store; leave out the store, or give --add too"
            )
        if self.rebuild and (self.store is None or self.add or self.remove):
            raise UsageError(
                "--rebuild needs the feature store of the whole index, and cannot be combined with --add or --remove"
            )
        if self.shards is not None and self.shards < 1:
            raise UsageError(f"--shards is {self.shards}; it must be at least 1")
        for option, value in (("--backend", self.backend != "auto"), ("--shards", self.shards is not None)):
            if value and (self.add or self.rebuild or self.store is None):
                raise UsageError(f"{option} is chosen when an index is built; leave it out when you change an index")
        if self.asmk is not None and self.shards is not None:
            raise UsageError("--asmk does not work with shards; leave out --shards or --asmk")
        with only_changer(self.out, SearchIndexError):  # also while it is read
            index = self._index(report)
            words = self._aggregate(index, report)
        report.succeeded += 1
        record = {
            "index": self.out,
            "photos": len(index),
            "features": index.feature_count,
            "dimension": index.dimension,
            "backend": index.backend,
            "words": words,
        }
        sentence = (
            f"{self.out}: {len(index)} photos, {index.feature_count} features of {index.dimension} dimensions, "
            f"backend {index.backend}"
        )
        if shards := getattr(index, "shards", ()):
            record["shards"] = len(shards)
            sentence += f", {len(shards)} shard{'s' if len(shards) > 1 else ''}"
        report.result(record, sentence)

    def _index(self, report: Report) -> "retrieval.SearchableIndex":
        """The index, built in its folder, or opened and changed there."""
        from delf_cli import environment

        environment.start_jax()
        import retrieval
        from delf_jax.store.reader import FeatureStore

        store = None if self.store is None else FeatureStore.open(self.store)
        if store is not None and not (self.add or self.rebuild):
            with report.progress("indexing"):
                if self.shards is not None:
                    return retrieval.ShardedIndex.build(store, self.out, shards=self.shards, backend=self.backend)
                return retrieval.Index.build(store, backend=self.backend, out=self.out)
        index = retrieval.open_index(self.out)
        if self.rebuild:
            self._rebuild(index, store, report)
        if self.remove or self.add:
            index.change(removed=self._removed(index), added=store if store is not None and self.add else ())
        return index

    def _removed(self, index: "retrieval.SearchableIndex") -> list[str]:
        """The names in the index of the photos that --remove names."""
        if not self.remove:
            return []
        from delf_jax.photos.meant import photo_meant

        names = frozenset(index.names)
        try:
            return [photo_meant(typed, names) for typed in self.remove]
        except DelfError as error:
            raise SearchIndexError(f"{self.out}: {error}") from None

    def _aggregate(self, index: "retrieval.SearchableIndex", report: Report) -> int:
        """Adds the visual words of --asmk. Returns the number of visual words that the index has now."""
        import retrieval
        from retrieval import asmk

        if not isinstance(index, retrieval.Index):
            if self.asmk is not None:
                raise UsageError(f"{self.out}: this index is in shards, which --asmk does not support; leave it out")
            return 0
        if self.asmk is not None:
            codebook = asmk.Codebook.open(self.asmk)
            with report.progress("aggregating"):
                index.aggregate(codebook)
        return 0 if index.inverted_file is None else len(index.inverted_file.codebook)

    def _rebuild(
        self,
        index: "retrieval.SearchableIndex",
        store: "delf_jax.store.reader.FeatureStore | None",
        report: Report,
    ) -> None:
        import retrieval

        if not isinstance(index, retrieval.ShardedIndex):
            raise UsageError(
                f"{self.out}: this index is not in shards; leave out --rebuild to build the whole index again"
            )
        assert store is not None
        before = len(index)
        rebuilt = index.rebuild(store)
        for name, reasons in rebuilt.items():
            report.note(f"shard {name} was damaged ({reasons[0]}) and has been built again")
        if rebuilt and len(index) < before:
            report.note(
                f"{before - len(index)} of its photos are not in {self.store}; extract them, and --add that store"
            )
