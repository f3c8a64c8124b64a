"""`delf-jax codebook`: the visual words of a feature store, for aggregated search."""

import dataclasses
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from delf_cli.options import UsageError
from delf_cli.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codebook:
    """Divide the descriptors of a feature store into visual words, for `index --asmk` (k-means).

    Take other photos than those that are searched: words fitted to the photos themselves flatter a benchmark.

    Attributes:
        store: feature store, as written by `delf-jax extract`.
        out: the codebook, a file.
        words: how many; the papers take 65536 for millions of descriptors. At most one for ten descriptors is wise.
        sample: descriptors that are looked at, drawn from all photos; bounds the memory.
        iterations: of k-means at most.
        json: print one JSON line with the counts.
    """

    store: Annotated[Positional[str], arg(metavar="STORE")]
    out: Annotated[str, arg(metavar="CODEBOOK")]
    words: int = 65536
    sample: int = 1_000_000
    iterations: int = 50
    json: bool = False

    example: ClassVar[str] = "delf-jax codebook other_features --out codebook.safetensors --words 8192"

    def run(self, report: Report) -> None:
        """Reads the store once, and writes the codebook whole or not at all."""
        for name in ("words", "sample", "iterations"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if self.words > self.sample:
            raise UsageError(f"--words is {self.words}, more than the {self.sample} descriptors of --sample")
        from delf_cli import environment

        environment.start_jax()
        from delf_jax.store.reader import FeatureStore
        from retrieval import asmk

        store = FeatureStore.open(self.store)
        with report.progress("k-means", "iterations") as advance:
            codebook = asmk.train(
                (photo.features for photo in store),
                words=self.words,
                sample=self.sample,
                iterations=self.iterations,
                fingerprint=store.fingerprint,
                progress=advance,
            )
        codebook.save(self.out)
        report.succeeded += 1
        record = {"codebook": self.out, "words": len(codebook), "dimension": codebook.dimension, "photos": len(store)}
        report.result(record, f"{self.out}: {len(codebook)} words of {codebook.dimension} dimensions")
