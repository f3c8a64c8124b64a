"""Settings of the official DELF code: its ``.pbtxt`` files (delf_config.proto) and the arrays that they name."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from delf_jax.errors import ModelError, reason_of
from delf_jax.extraction.pca import Pca
from delf_jax.files.protobuf import message_class
from delf_jax.interchange.datum import read_datum

# Of delf_config.proto, what describes local features; fields for other purposes are skipped.
_CONFIG = message_class(
    """
message DelfPcaParameters {
  optional string mean_path = 1;
  optional string projection_matrix_path = 2;
  optional int32 pca_dim = 3;
  optional bool use_whitening = 4;
  optional string pca_variances_path = 5;
}
message DelfLocalFeatureConfig {
  optional bool use_pca = 1 [default = true];
  optional int32 max_feature_num = 4 [default = 1000];
  optional float score_threshold = 5 [default = 100];
  optional DelfPcaParameters pca_parameters = 6;
}
message DelfConfig {
  optional string model_path = 1;
  repeated float image_scales = 2;
  optional DelfLocalFeatureConfig delf_local_config = 3;
  optional int32 max_image_size = 4 [default = -1];
}
""",
    "DelfConfig",
)


@dataclasses.dataclass(frozen=True)
class DelfConfig:
    """The settings that a release was made for.

    Attributes:
        scales: image scales of the pyramid.
        score_threshold: smallest attention of a feature, in the checkpoint's own units.
        max_features: features kept per photo.
        max_side: longest side in pixels that photos are reduced to; None if they are not.
        pca_dimension: dimensions of the descriptor that the PCA keeps; None without a PCA.
        whiten: whether projections are divided by the square root of their variance.
        pca_files: paths of mean, projection matrix and variances, as in the config; by default the names in releases.
    """

    scales: tuple[float, ...]
    score_threshold: float
    max_features: int = 1000
    max_side: int | None = None
    pca_dimension: int | None = None
    whiten: bool = False
    pca_files: tuple[str, str, str] = ("mean.datum", "pca_proj_mat.datum", "pca_variances.datum")

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of ``ExtractionSettings`` that it sets; the official code keeps every cell."""
        side = {} if self.max_side is None else {"max_side": self.max_side}
        return {
            "scales": list(self.scales),
            "threshold": self.score_threshold,
            "max_features": self.max_features,
            "detection": "cells",
            **side,
        }


def read_config(path: str | os.PathLike[str]) -> DelfConfig:
    """Reads a ``DelfConfig`` in text form.

    Raises:
        ModelError: the file is missing, is not a DelfConfig in text form, or names no scales.
    """
    message = _CONFIG()
    try:
        text_format.Parse(Path(path).read_text(encoding="utf-8-sig"), message, allow_unknown_field=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({reason_of(error)})") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not a DelfConfig in text form ({error}); give the .pbtxt of the release") from error
    if not message.image_scales:
        raise ModelError(f"{path}: names no image_scales; give the .pbtxt of the release")
    local, pca = message.delf_local_config, message.delf_local_config.pca_parameters
    default = DelfConfig.pca_files
    return DelfConfig(
        # Decimal numbers come back as float32.
        scales=tuple(round(scale, 6) for scale in message.image_scales),
        score_threshold=round(local.score_threshold, 4),
        max_features=local.max_feature_num,
        max_side=message.max_image_size if message.max_image_size > 0 else None,
        pca_dimension=pca.pca_dim if local.use_pca else None,
        whiten=pca.use_whitening,
        pca_files=(
            pca.mean_path or default[0],
            pca.projection_matrix_path or default[1],
            pca.pca_variances_path or default[2],
        ),
    )


def read_pca(config: DelfConfig, folder: Path) -> Pca:
    """The PCA that a config names: the first ``pca_dimension`` rows of its matrix.

    Args:
        config: with a ``pca_dimension``.
        folder: of the release; the arrays are searched at their paths, in its folder ``pca`` and in the folder itself.

    Raises:
        ModelError: an array is missing or damaged, or the shapes of the arrays do not fit.
    """
    dimension = config.pca_dimension or 0
    mean, matrix = (read_datum(_find(path, folder)) for path in config.pca_files[:2])
    mean = mean.ravel()
    if matrix.ndim != 2 or matrix.shape[1] != len(mean) or len(matrix) < dimension:
        raise ModelError(
            f"{folder}: a PCA matrix of shape {matrix.shape} for a mean of {len(mean)} and {dimension} dimensions; "
            "give the config and the arrays of one release"
        )
    variance = np.ones(dimension, np.float32)
    if config.whiten:
        variance = read_datum(_find(config.pca_files[2], folder)).ravel()[:dimension]
    return Pca(mean, matrix[:dimension], variance)


def _find(path: str, folder: Path) -> Path:
    """Configs name files relative to where the official scripts run, which is another folder here."""
    candidates = [Path(path), folder / path, folder / "pca" / Path(path).name, folder / Path(path).name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ModelError(f"{folder}: has no {Path(path).name}, in the folder itself or in pca/; give the whole release")
