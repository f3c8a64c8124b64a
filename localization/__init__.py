"""Object localization without labels, explained by the training positions that caused it.

Dense features -> foreground direction w* -> maps, boxes, masks and representer points (Song et al., ICCV 2023).
"""

from localization.encoders import CallableEncoder, ExtractorEncoder, MapEncoder, backbone_encoder, default_encoder
from localization.fitting import fit
from localization.localizing import Localization
from localization.maps import ActivationMap, activation_map, upsample
from localization.predictor import Predictor
from localization.statistics import Statistics

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
