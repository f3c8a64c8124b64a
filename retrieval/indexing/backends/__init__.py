"""Nearest neighbours of descriptors: one interface, two backends.

``scann`` is fast and approximate; ``exact`` is a matrix product in JAX, for machines without a ScaNN wheel.
"""

import abc
import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from delf_jax.errors import SearchIndexError

BackendName = Literal["auto", "scann", "exact"]


class Backend(abc.ABC):
    """Unit descriptors that can be searched by dot product; the id of a descriptor is its row in the array."""

    name: str

    @classmethod
    @abc.abstractmethod
    def build(cls, descriptors: Float[np.ndarray, "n d"]) -> "Backend":
        """Indexes unit descriptors, float16 or float32, at least one."""

    @abc.abstractmethod
    def search(
        self, queries: Float[np.ndarray, "q d"], k: int
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """The k rows with the largest dot product with each float32 query, best first: ids int64, similarities float32.

        At most as many as there are rows. If an approximate backend finds fewer, the id is -1 and the similarity -inf.
        """

    @abc.abstractmethod
    def update(self, removed: Int[np.ndarray, " m"], descriptors: Float[np.ndarray, "n d"]) -> "Backend":
        """The backend of ``descriptors``: the present rows without ``removed`` (ascending), then new rows.

        This object must not be used afterwards, because the backend may change in place.
        """

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Writes the backend's own files into an existing folder."""

    @classmethod
    @abc.abstractmethod
    def open(cls, folder: Path, descriptors: Float[np.ndarray, "n d"]) -> "Backend":
        """Reads what ``save`` wrote; ``descriptors`` are all rows, as the index keeps them."""


def backend_class(name: str) -> type[Backend]:
    """The class of a backend; ``auto`` is ``scann`` if it is installed, else ``exact``.

    Raises:
        SearchIndexError: the name is unknown, or ScaNN is not installed.
    """
    installed = importlib.util.find_spec("scann") is not None
    if name == "auto":
        name = "scann" if installed else "exact"
    if name == "exact":
        from retrieval.indexing.backends.exact_backend import ExactBackend

        return ExactBackend
    if name == "scann":
        if not installed:
            raise SearchIndexError(
                "backend scann: ScaNN is not installed here; pip install scann, or use backend exact"
            )
        from retrieval.indexing.backends.scann_backend import ScannBackend

        return ScannBackend
    raise SearchIndexError(f"backend {name}: unknown; choose auto, scann or exact")
