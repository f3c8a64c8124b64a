"""Object localization without labels, explained by the training positions that caused it (Song et al., ICCV 2023).

``fit`` makes a ``Predictor`` from photos: dense features (``encoders``) -> the foreground direction w* (``foreground``)
-> maps, boxes and masks (``maps``) and representer points (``representers``).
"""

from localization.encoders.callable_encoder import CallableEncoder
from localization.encoders.choosing import backbone_encoder, default_encoder
from localization.encoders.extractor_encoder import ExtractorEncoder
from localization.encoders.map_encoder import MapEncoder
from localization.fitting.fit import fit
from localization.foreground.statistics import Statistics
from localization.grid import Grid
from localization.localizing import Localization
from localization.maps.activation import ActivationMap, activation_map, upsample
from localization.predictor import Predictor

__all__ = [
    "ActivationMap",
    "CallableEncoder",
    "ExtractorEncoder",
    "Grid",
    "Localization",
    "MapEncoder",
    "Predictor",
    "Statistics",
    "activation_map",
    "backbone_encoder",
    "default_encoder",
    "fit",
    "upsample",
]
