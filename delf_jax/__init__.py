"""Photos to attentive local features (DELF) in JAX: encoders, attention, pyramid, weights, the store and the command.

``load`` gives an ``Extractor``; an extractor gives ``LocalFeatures``. Errors a user can mend are ``DelfError``s.
"""

from delf_jax.errors import DelfError, ImageError, ModelError, PredictorError, SearchIndexError, StoreError
from delf_jax.extractor import Extractor
from delf_jax.features import LocalFeatures
from delf_jax.head import Head
from delf_jax.loading import load
from delf_jax.settings import ExtractionSettings

__all__ = [
    "DelfError",
    "ExtractionSettings",
    "Extractor",
    "Head",
    "ImageError",
    "LocalFeatures",
    "ModelError",
    "PredictorError",
    "SearchIndexError",
    "StoreError",
    "load",
]
