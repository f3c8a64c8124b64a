"""The inverted file of ASMK: for every visual word the photos in which it occurs, and their vectors for it."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from retrieval.asmk.aggregation import Aggregated, aggregate, binarised
from retrieval.asmk.codebook import Codebook

CODEBOOK = "codebook.safetensors"
SETTINGS = "settings.json"
_ARRAYS = ("offsets", "photos", "vectors")

# Entries compared at once. This bounds the memory of a query: 48 MiB for entries of 128 bits.
_ENTRIES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Kernel:
    """How the words of two photos are compared; the default is ASMK* of Detect-to-Retrieve.

    Attributes:
        binary: keep one bit for each dimension (ASMK*), not float16 (ASMK).
        alpha: exponent of the similarity of a word: the larger, the more similar words dominate.
        tau: similarities up to this count as 0.
        idf: weight words by the square of log(photos / photos with the word).
    """

    binary: bool = True
    alpha: float = 3.0
    tau: float = 0.0
    idf: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class InvertedFile:
    """The words of p photos: m entries in the order of words, those of word c at ``offsets[c]`` to ``offsets[c + 1]``.

    Attributes:
        codebook: the k words.
        kernel: how photos are compared.
        photo_count: p.
        offsets: int64 [k + 1].
        photos: int32 [m], the photo of every entry, ascending within a word.
        vectors: uint8 [m, d / 8] bits or float16 [m, d], the vector of every entry.
    """

    codebook: Codebook
    kernel: Kernel
    photo_count: int
    offsets: Int[np.ndarray, " o"]
    photos: Int[np.ndarray, " m"]
    vectors: np.ndarray

    @functools.cached_property
    def weights(self) -> Float[np.ndarray, " k"]:
        """w_c of every word."""
        shown = np.diff(self.offsets)
        if not self.kernel.idf:
            return np.ones(len(shown))
        return np.log(max(self.photo_count, 1) / np.maximum(shown, 1)) ** 2

    @functools.cached_property
    def norms(self) -> Float[np.ndarray, " p"]:
        """1 / g of every photo."""
        weights = np.repeat(self.weights, np.diff(self.offsets))
        return np.sqrt(np.bincount(self.photos, weights=weights, minlength=self.photo_count))

    @classmethod
    def build(
        cls, photos: Iterable[Sequence[Float[np.ndarray, "_n d"]]], codebook: Codebook, *, kernel: Kernel | None = None
    ) -> "InvertedFile":
        """Aggregates photos one at a time; at the end memory holds the file twice.

        Args:
            photos: for each photo the descriptors of the whole photo, then those of its regions (see ``aggregate``).
            codebook: the words.
            kernel: how photos are compared.
        """
        kernel = kernel or Kernel()
        entries = [_entries(place, aggregate(regions, codebook), kernel) for place, regions in enumerate(photos)]
        return _sorted(entries, codebook, kernel, photo_count=len(entries))

    def __len__(self) -> int:
        """Number of entries: the sum of the numbers of words in all photos."""
        return len(self.photos)

    @property
    def nbytes(self) -> int:
        """Bytes that a search needs: entries, offsets, norms and the codebook."""
        held = (self.offsets, self.photos, self.vectors, self.norms, self.weights, self.codebook.centroids)
        return sum(int(array.nbytes) for array in held)

    def scores(self, descriptors: Float[np.ndarray, "n d"], *, assignments: int = 1) -> Float[np.ndarray, " p"]:
        """ASMK similarity of a query with every photo; -inf if the two share no word.

            K(X, Y) = g(X) g(Y) sum_c w_c s(u_c),   s(u) = sign(u) |u|^alpha if u > tau, else 0

        over the words of both, with u_c the dot product of the two unit vectors of word c (of their signs over sqrt(d)
        for ASMK*: 1 - 2 h / d with h differing bits), w_c = 1 or idf squared, and g(X) = (sum_c w_c)^(-1/2) over the
        words of X (Tolias et al., IJCV 2016).

        Args:
            descriptors: of the query.
            assignments: nearest words that each descriptor of the query belongs to.
        """
        query = aggregate([descriptors], self.codebook, assignments=assignments)
        sums, seen = np.zeros(self.photo_count), np.zeros(self.photo_count, bool)
        vectors = _comparable(_entries(0, query, self.kernel).vectors)
        for words, rows in self._lists(query.words):
            alike = self._alike(vectors[words], np.asarray(self.vectors[rows]))
            kept = alike > self.kernel.tau
            alike, photos, words = alike[kept], np.asarray(self.photos[rows])[kept], query.words[words[kept]]
            powers = np.sign(alike) * np.abs(alike) ** self.kernel.alpha
            sums += np.bincount(photos, weights=self.weights[words] * powers, minlength=self.photo_count)
            seen[photos] = True
        own = float(np.sqrt(self.weights[query.words].sum()))
        scores = sums / np.maximum(own * self.norms, 1e-12)
        return np.where(seen, scores, -np.inf).astype(np.float32)

    def update(
        self, removed: Bool[np.ndarray, " p"], added: Iterable[Sequence[Float[np.ndarray, "_n d"]]]
    ) -> "InvertedFile":
        """The file without the photos marked True, and with new photos at the end; numbers of photos close up."""
        places, kept = np.cumsum(~removed) - 1, ~removed[self.photos]
        words = np.repeat(np.arange(len(self.codebook)), np.diff(self.offsets))
        old = _Entries(words[kept], places[self.photos[kept]], self.vectors[kept])
        remaining = int(np.sum(~removed))
        new = [
            _entries(place, aggregate(regions, self.codebook), self.kernel)
            for place, regions in enumerate(added, remaining)
        ]
        return _sorted([old, *new], self.codebook, self.kernel, photo_count=remaining + len(new))

    def save(self, folder: Path) -> None:
        """Writes its files into an existing folder."""
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
        described = dataclasses.asdict(self.kernel) | {"photos": self.photo_count}
        (folder / SETTINGS).write_text(json.dumps(described))
        self.codebook.save(folder / CODEBOOK)

    @classmethod
    def open(cls, folder: Path) -> "InvertedFile":
        """Reads what ``save`` wrote; the entries are mapped, not read."""
        offsets, photos, vectors = (np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in _ARRAYS)
        described = json.loads((folder / SETTINGS).read_text())
        count = described.pop("photos")
        codebook = Codebook.open(folder / CODEBOOK)
        return cls(codebook, Kernel(**described), int(count), np.asarray(offsets), photos, vectors)

    def _lists(self, words: Int[np.ndarray, " w"]) -> Iterator[tuple[Int[np.ndarray, " e"], Int[np.ndarray, " e"]]]:
        """The entries of these words in groups of bounded size: (place of its word in ``words``, row) of each entry."""
        starts, counts = self.offsets[words], self.offsets[words + 1] - self.offsets[words]
        groups = np.flatnonzero(np.diff(np.cumsum(counts) // _ENTRIES, prepend=0))
        for part in np.split(np.arange(len(words)), groups):
            if len(part) and counts[part].sum():
                place = np.repeat(part, counts[part])
                first = np.cumsum(counts[part]) - counts[part]
                yield place, np.arange(len(place)) + np.repeat(starts[part] - first, counts[part])

    def _alike(self, ours: np.ndarray, theirs: np.ndarray) -> Float[np.ndarray, " e"]:
        """Dot products of unit vectors."""
        if not self.kernel.binary:
            return np.einsum("ed,ed->e", ours, theirs.astype(np.float32))
        differing = np.bitwise_count(ours ^ _comparable(theirs)).sum(axis=1, dtype=np.int32)
        return (1 - 2 * differing / self.codebook.dimension).astype(np.float32)


class _Entries(NamedTuple):
    """Words, the photos in which they occur, and their vectors as they are kept."""

    words: Int[np.ndarray, " e"]
    photos: Int[np.ndarray, " e"]
    vectors: np.ndarray


def _entries(place: int, shown: Aggregated, kernel: Kernel) -> _Entries:
    vectors = binarised(shown.vectors) if kernel.binary else shown.vectors.astype(np.float16)
    return _Entries(shown.words, np.full(len(shown.words), place), vectors)


def _sorted(entries: Sequence[_Entries], codebook: Codebook, kernel: Kernel, *, photo_count: int) -> InvertedFile:
    """Entries word by word, in the order of their photos."""
    none = _entries(0, aggregate([], codebook), kernel)
    words, photos, vectors = (np.concatenate(column) for column in zip(none, *entries))
    order = np.argsort(words, kind="stable")
    counts = np.bincount(words, minlength=len(codebook))
    offsets = np.cumsum([0, *counts], dtype=np.int64)
    return InvertedFile(codebook, kernel, photo_count, offsets, photos[order].astype(np.int32), vectors[order])


def _comparable(vectors: np.ndarray) -> np.ndarray:
    """Bits in integers of 64 bits if they fill them, floats in float32."""
    if vectors.dtype != np.uint8:
        return vectors.astype(np.float32)
    wide = np.uint64 if vectors.shape[1] % 8 == 0 else np.uint8
    return np.ascontiguousarray(vectors).view(wide)
