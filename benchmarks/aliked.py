"""ALIKED, the learned peer (Zhao et al., IEEE TIM 2023): the code of kornia with the published weights."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import PeerMissing
from delf_jax.features import LocalFeatures
from delf_jax.photos.load import load_photo

MODEL = "aliked-n16"


@dataclasses.dataclass(frozen=True)
class Aliked:
    """ALIKED on photos at their own size.

    Attributes:
        weights: the published file of ``aliked-n16``.
        max_features: most features that are kept.
    """

    weights: Path
    max_features: int = 1000

    @property
    def description(self) -> dict[str, Any]:
        """Everything on which the features depend besides the photo, as JSON values.

        Raises:
            PeerMissing: there is no such file of weights.
        """
        if not self.weights.is_file():
            raise PeerMissing(f"{self.weights.name} is missing in the data folder")
        digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        return {"method": MODEL, "weights": digest, "max_features": self.max_features}

    def __call__(self, photos: Sequence[Path]) -> list[LocalFeatures]:
        """Features of each photo, strongest first, all of scale 1.

        Raises:
            PeerMissing: PyTorch or kornia is not installed.
            ImageError: a photo cannot be read.
        """
        try:
            import torch
            from kornia.feature import ALIKED
        except ImportError as error:
            raise PeerMissing(f"{error.name} is not installed; pip install delf-jax[peers]") from None
        # A threshold of 0 keeps the strongest maxima, however weak.
        network = ALIKED(MODEL, max_num_keypoints=self.max_features, detection_threshold=0.0)
        network.load_state_dict(torch.load(self.weights, map_location="cpu", weights_only=True), strict=False)
        network.eval()
        found = []
        for photo in photos:
            pixels = load_photo(photo, max_side=None).pixels
            image = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
            with torch.inference_mode():
                one = network(image)[0]
            order = np.argsort(-one.keypoint_scores.numpy(), kind="stable")
            found.append(
                LocalFeatures(
                    keypoints=one.keypoints.numpy()[order],
                    scales=np.ones(len(order), np.float32),
                    scores=one.keypoint_scores.numpy()[order],
                    descriptors=one.descriptors.numpy()[order],
                    image_size=pixels.shape[:2],
                )
            )
        return found
