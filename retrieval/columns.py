"""The columns of an index: every photo's local features in flat arrays, as verification needs them."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures


@dataclasses.dataclass(frozen=True)
class PhotoColumns:
    """Features of p photos, n in all; photo i owns the rows ``offsets[i]`` to ``offsets[i + 1]``.

    Attributes:
        names: p names.
        image_sizes: int32 [p, 2], (height, width) of the upright original photos.
        offsets: int64 [p + 1].
        keypoints: float32 [n, 2], (x, y) in pixels of the upright original photo.
        scales: float32 [n].
        scores: float32 [n].
        descriptors: float16 [n, d], unit length up to rounding; mapped from the file in an opened index.
    """

    names: tuple[str, ...]
    image_sizes: Int[np.ndarray, "p 2"]
    offsets: Int[np.ndarray, " p+1"]
    keypoints: Float[np.ndarray, "n 2"]
    scales: Float[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"]
    descriptors: Float[np.ndarray, "n d"]

    @classmethod
    def gather(cls, photos: Iterable[tuple[str, LocalFeatures]]) -> "PhotoColumns":
        """Joins photos one at a time; besides the result it holds one photo.

        Raises:
            SearchIndexError: a name comes twice, dimensions differ, or there is no feature at all.
        """
        names: dict[str, tuple[int, int]] = {}
        counts, parts = [], []
        for name, features in photos:
            if name in names:
                raise SearchIndexError(f"{name}: comes twice; give every photo a name of its own")
            names[name] = (int(features.image_size[0]), int(features.image_size[1]))
            counts.append(len(features))
            if len(features):
                parts.append(
                    (
                        np.asarray(features.keypoints, np.float32),
                        np.asarray(features.scales, np.float32),
                        np.asarray(features.scores, np.float32),
                        np.asarray(features.descriptors, np.float16),
                    )
                )
            if len(features) and parts[0][3].shape[1] != parts[-1][3].shape[1]:
                dimensions = f"{parts[-1][3].shape[1]} dimensions, the photos before it {parts[0][3].shape[1]}"
                raise SearchIndexError(f"{name}: its descriptors have {dimensions}; extract all with one model")
        if not parts:
            found = f"none of the {len(names)} photos has a feature" if names else "there are no photos"
            raise SearchIndexError(f"nothing to index: {found}; extract photos that show something")
        keypoints, scales, scores, descriptors = (np.concatenate(column) for column in zip(*parts))
        return cls(
            names=tuple(names),
            image_sizes=np.array(list(names.values()), np.int32),
            offsets=np.cumsum([0, *counts], dtype=np.int64),
            keypoints=keypoints,
            scales=scales,
            scores=scores,
            descriptors=descriptors,
        )

    def __iter__(self) -> Iterator[tuple[str, LocalFeatures]]:
        """Photos in order, as ``gather`` takes them."""
        return ((name, self.features(photo)) for photo, name in enumerate(self.names))

    def features(self, photo: int) -> LocalFeatures:
        """The features of the photo at this place; its descriptors stay float16."""
        rows = slice(self.offsets[photo], self.offsets[photo + 1])
        height, width = self.image_sizes[photo]
        return LocalFeatures(
            self.keypoints[rows],
            self.scales[rows],
            self.scores[rows],
            self.descriptors[rows],
            (int(height), int(width)),
        )

    def photo_of(self, rows: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """Which photo owns each row."""
        return np.searchsorted(self.offsets, rows, side="right") - 1

    def rows_of(self, photos: Bool[np.ndarray, " p"]) -> Int[np.ndarray, " r"]:
        """The rows of the photos marked True, ascending."""
        return np.flatnonzero(np.repeat(photos, np.diff(self.offsets)))

    def save(self, folder: Path) -> None:
        """Writes one .npy file a column, and the names as JSON."""
        for column in _ARRAYS:
            np.save(folder / f"{column}.npy", getattr(self, column), allow_pickle=False)
        (folder / "names.json").write_text(json.dumps(self.names))

    @classmethod
    def open(cls, folder: Path) -> "PhotoColumns":
        """Reads what ``save`` wrote."""
        arrays = {column: np.load(folder / f"{column}.npy", allow_pickle=False) for column in _ARRAYS[:-1]}
        descriptors = np.load(folder / "descriptors.npy", mmap_mode="r", allow_pickle=False)
        return cls(tuple(json.loads((folder / "names.json").read_text())), **arrays, descriptors=descriptors)


_ARRAYS = ("image_sizes", "offsets", "keypoints", "scales", "scores", "descriptors")
