"""`delf-jax codebook`: fits visual words to a feature store by k-means, for ASMK search."""

import dataclasses
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from delf_cli.options import UsageError
from delf_cli.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codebook:
    """Fit a codebook of visual words to the descriptors of a feature store (k-means), for `index --asmk`.

    For a fair benchmark, take other photos than those that are searched.

    Attributes:
        store: feature store, as written by `delf-jax extract`.
        out: the codebook file to write.
        words: number of visual words. The papers take 65536 for millions of descriptors. Take at least ten descriptors
            per word.
        sample: number of descriptors that k-means uses, drawn from all photos. It limits the memory.
        iterations: most iterations of k-means.
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
        """Fits the words and writes the codebook."""
        for name in ("words", "sample", "iterations"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if self.words > self.sample:
            raise UsageError(
                f"--words is {self.words}, but --sample is only {self.sample}; give fewer words or a larger sample"
            )
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
