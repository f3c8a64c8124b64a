"""Search as the page shows it: an index and its extractor, records without paths, pictures on demand."""

import dataclasses
from typing import Any

from delf_cli import cropping, pictures
from delf_cli.web.names import shown_names
from delf_jax import drawing
from delf_jax.errors import ImageError
from delf_jax.extractor import Extractor
from delf_jax.features import LocalFeatures
from delf_jax.photos.load import load_photo
from retrieval import Index, SearchResult

_THUMBNAIL_SIDE = 320


@dataclasses.dataclass(frozen=True)
class Answer:
    """The features of a query photo, and what the index knows of them."""

    features: LocalFeatures
    result: SearchResult


class Finder:
    """Answers queries; not safe to use from several threads at once.

    Args:
        index: the photos to search.
        extractor: makes the same features as those of the index.
        top: results of an answer.
        verify: photos whose geometry is checked for a query.
    """

    def __init__(self, index: Index, extractor: Extractor, *, top: int, verify: int) -> None:
        self.index = index
        self._extractor, self._top, self._verify = extractor, top, verify
        self._places = {name: place for place, name in enumerate(index.names)}
        self._shown = shown_names(index.names)

    def search(self, photo: bytes, box: cropping.Box | None) -> Answer:
        """Searches for a photo, or for what is inside a box of it; ImageError where it gives no features to look at."""
        ((_, features),) = cropping.stream(self._extractor, [photo], [box])
        if isinstance(features, ImageError):
            raise features
        max_side = self._extractor.settings.max_side
        return Answer(features, self.index.search(features, verify=self._verify, top=self._top, max_side=max_side))

    def record(self, answer: Answer) -> dict[str, Any]:
        """The answer as JSON holds it; photos of the index go by their shown names and their places in it."""
        matches = [
            {
                "name": self._shown[found.image],
                "place": self._places[found.image],
                "inliers": found.inliers,
                "putative": found.putative,
                "log10_nfa": found.log10_nfa,
                "accepted": found.accepted,
                "score": found.score,
            }
            for found in answer.result.matches
        ]
        return {"accepted": answer.result.accepted, "features": len(answer.features), "matches": matches}

    def proof(self, photo: bytes, answer: Answer, rank: int) -> bytes:
        """JPEG of the query beside its match of that rank (from 0), with lines; ImageError where a photo is gone."""
        found = answer.result.matches[rank]
        left = pictures.panel(photo, answer.features)
        right = pictures.panel(found.image, self.index.features(found.image))
        return drawing.to_jpeg(pictures.pair(left, right, found))

    def thumbnail(self, place: int) -> bytes:
        """Small JPEG of a photo of the index; ImageError where its file is gone."""
        pixels = load_photo(self.index.names[place], max_side=_THUMBNAIL_SIDE).pixels
        return drawing.to_jpeg(pixels)
