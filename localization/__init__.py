"""Object localization without labels, explained by the training positions that caused it.

Dense features -> foreground direction w* -> maps, boxes, masks and representer points (Song et al., ICCV 2023).
"""

from localization.encoders.encoders import (
    CallableEncoder,
    ExtractorEncoder,
    MapEncoder,
    backbone_encoder,
    default_encoder,
)
from localization.fitting.fit import fit
from localization.foreground.statistics import Statistics
from localization.localizing import Localization
from localization.maps.activation import ActivationMap, activation_map, upsample
from localization.predictor import Predictor

__all__ = [
    "ActivationMap",
    "CallableEncoder",
    "ExtractorEncoder",
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
