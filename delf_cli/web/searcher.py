"""Search for the page: asks the index, gives answers without paths of the server, and draws their pictures."""

import dataclasses
from typing import Any

from delf_cli import cropped_features, result_pictures
from delf_cli.web.display_names import display_names
from delf_jax import drawing
from delf_jax.errors import ImageError
from delf_jax.extractor import Extractor
from delf_jax.features import LocalFeatures
from delf_jax.photos.load import load_photo
from retrieval import SearchableIndex, SearchResult

_THUMBNAIL_SIDE = 320


@dataclasses.dataclass(frozen=True, eq=False)
class SearchAnswer:
    """The features of a query photo, and the result of the search."""

    features: LocalFeatures
    result: SearchResult


class Searcher:
    """Searches an index. Not thread-safe.

    Args:
        index: the index that is searched.
        extractor: computes features of the same kind as those of the index.
        top: most matches of an answer.
        verify: photos of the index whose geometry is verified for a query.
    """

    def __init__(self, index: SearchableIndex, extractor: Extractor, *, top: int, verify: int) -> None:
        self.index = index
        self._extractor, self._top, self._verify = extractor, top, verify
        # An index in shards asks all of them for its names.
        self._names = index.names
        self._places = {name: place for place, name in enumerate(self._names)}
        self._shown = display_names(self._names)

    def search(self, photo: bytes, box: cropped_features.Box | None) -> SearchAnswer:
        """Searches for a photo, or for the part inside ``box``; ImageError if the photo cannot be read."""
        ((_, features),) = cropped_features.extract_inside_boxes(self._extractor, [photo], [box])
        if isinstance(features, ImageError):
            raise features
        return SearchAnswer(features, self.index.search(features, verify=self._verify, top=self._top))

    def photo(self, name: str) -> dict[str, Any]:
        """A photo of the index for JSON: its display name and its place in the index; KeyError if there is none."""
        return {"name": self._shown[name], "place": self._places[name]}

    def record(self, answer: SearchAnswer) -> dict[str, Any]:
        """The answer for JSON; photos of the index as ``photo`` gives them."""
        matches = [
            {
                **self.photo(found.image),
                "inliers": found.inliers,
                "putative": found.putative,
                "log10_nfa": found.log10_nfa,
                "accepted": found.accepted,
                "overlay": found.overlay,
                "confidence": found.confidence,
                "evidence": found.evidence,
                "score": found.score,
            }
            for found in answer.result.matches
        ]
        return {
            "accepted": answer.result.accepted,
            "threshold": answer.result.acceptance.threshold,
            "guarantee": answer.result.acceptance.guarantee,
            "features": len(answer.features),
            "matches": matches,
        }

    def proof(self, photo: bytes, answer: SearchAnswer, rank: int) -> bytes:
        """JPEG of the query beside its match of this rank (from 0), with lines; ImageError if a photo is gone."""
        found = answer.result.matches[rank]
        left = result_pictures.load_panel(photo, answer.features)
        right = result_pictures.load_panel(found.image, self.index.features(found.image))
        return drawing.to_jpeg(result_pictures.draw_pair(left, right, found))

    def thumbnail(self, place: int) -> bytes:
        """Small JPEG of a photo of the index; ImageError if its file is gone."""
        pixels = load_photo(self._names[place], max_side=_THUMBNAIL_SIDE).pixels
        return drawing.to_jpeg(pixels)
