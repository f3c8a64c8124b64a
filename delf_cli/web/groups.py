"""Groups for the page: reads those that `delf-jax group` wrote, and draws the proofs of their pairs."""

import json
from pathlib import Path
from typing import Any

from delf_cli import group, result_pictures
from delf_cli.web.searcher import Searcher
from delf_jax import drawing
from delf_jax.errors import SearchIndexError, reason_of
from retrieval.grouping.examining import proof


class Groups:
    """The groups of the photos of an index. Drawing is not thread-safe.

    Args:
        folder: as written by `delf-jax group`.
        searcher: of the index.

    Raises:
        SearchIndexError: there are no groups in the folder, the file is damaged, or they are groups of other photos.
    """

    def __init__(self, folder: str, searcher: Searcher) -> None:
        path = Path(folder) / group.GROUPS
        self._searcher = searcher
        try:
            self._groups = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            self._records = [self._record(each) for each in self._groups]
        except OSError as error:
            reason = f"cannot be read ({reason_of(error)}); write it with delf-jax group INDEX --out {folder}"
            raise SearchIndexError(f"{path}: {reason}") from error
        except (ValueError, TypeError, KeyError) as error:
            reason = "is damaged, or has photos that the index does not have; write it again with delf-jax group"
            raise SearchIndexError(f"{path}: {reason}") from error

    def record(self) -> dict[str, Any]:
        """All groups for JSON, and the number of photos in none; photos as ``Searcher.photo`` gives them."""
        grouped = sum(len(each["members"]) for each in self._records)
        return {"groups": self._records, "alone": len(self._searcher.index) - grouped}

    def proof(self, number: int, pair: int) -> bytes:
        """JPEG of a pair of a group, both counted from 0, with lines that join its matches.

        Raises:
            IndexError: there is no such group or pair.
            ImageError: a photo is gone.
        """
        edge, index = self._groups[number]["edges"][pair], self._searcher.index
        left, right = (result_pictures.load_panel(name, index.features(name)) for name in (edge["a"], edge["b"]))
        found = proof(index, edge["a"], edge["b"], log10_nfa=edge["log10_nfa"], limit=edge["limit"])
        return drawing.to_jpeg(result_pictures.draw_pair(left, right, found))

    def _record(self, one: dict[str, Any]) -> dict[str, Any]:
        photo, other_names = self._searcher.photo, set(one["disagreeing"])
        return {
            "label": one["label"],
            "members": [
                {
                    **photo(member["file"]),
                    "copy_of": member["copy_of"] and photo(member["copy_of"])["name"],
                    "other_name": member["file"] in other_names,
                }
                for member in one["members"]
            ],
            "pairs": [
                {
                    "a": photo(edge["a"])["name"],
                    "b": photo(edge["b"])["name"],
                    **{name: edge[name] for name in ("inliers", "log10_nfa", "limit", "copy")},
                }
                for edge in one["edges"]
            ],
        }
