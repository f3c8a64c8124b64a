"""Photos to attentive local features (DELF) in JAX.

``load`` returns an ``Extractor``, and an extractor turns photos into ``LocalFeatures``. Errors that a user can fix are
all ``DelfError``s.
"""

from typing import TYPE_CHECKING

from delf_jax.errors import (
    ClusterError,
    DelfError,
    FileFormatError,
    ImageError,
    ModelError,
    PredictorError,
    SearchIndexError,
    StoreError,
)
from delf_jax.on_first_use import imported_on_first_use
from delf_jax.settings import ExtractionSettings

if TYPE_CHECKING:
    from delf_jax.extraction.head import Head
    from delf_jax.extractor import Extractor
    from delf_jax.features import LocalFeatures
    from delf_jax.loading import load, released_settings

__all__ = [
    "ClusterError",
    "DelfError",
    "ExtractionSettings",
    "Extractor",
    "FileFormatError",
    "Head",
    "ImageError",
    "LocalFeatures",
    "ModelError",
    "PredictorError",
    "SearchIndexError",
    "StoreError",
    "load",
    "released_settings",
]

# Importing JAX takes a second, and `delf-jax --help` should not wait for it: these are imported on first use (PEP 562).
_HOMES = {
    "Extractor": "extractor",
    "Head": "extraction.head",
    "LocalFeatures": "features",
    "load": "loading",
    "released_settings": "loading",
}

__getattr__ = imported_on_first_use(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
