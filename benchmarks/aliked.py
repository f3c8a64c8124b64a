"""The learned peer: ALIKED (Zhao et al., IEEE TIM 2023) as kornia has it, with its published weights."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.errors import PeerMissing
from delf_jax.features import LocalFeatures
from delf_jax.images import load_photo

MODEL = "aliked-n16"


@dataclasses.dataclass(frozen=True)
class Aliked:
    """ALIKED on photos of one longest side, as its authors' matching pipeline resizes them.

    Attributes:
        weights: the published file of ``aliked-n16``.
        max_features: the strongest so many are kept.
        side: longest side in pixels that photos are brought to, enlarged too; None leaves them as they are.
    """

    weights: Path
    max_features: int = 1000
    side: int | None = None

    @property
    def description(self) -> dict[str, Any]:
        """Everything besides the photo that decides the features, as plain JSON values.

        Raises:
            PeerMissing: there is no such file of weights.
        """
        if not self.weights.is_file():
            raise PeerMissing(f"{self.weights.name} is not in the data folder")
        digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        return {"method": MODEL, "weights": digest, "max_features": self.max_features, "side": self.side}

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
            raise PeerMissing(f"{error.name} is not installed; the extra [peers] brings it") from None
        # A threshold of 0 keeps the strongest maxima, however weak.
        network = ALIKED(MODEL, max_num_keypoints=self.max_features, detection_threshold=0.0)
        network.load_state_dict(torch.load(self.weights, map_location="cpu", weights_only=True), strict=False)
        network.eval()
        with torch.inference_mode():
            return [self._one(photo, network, torch) for photo in photos]

    def _one(self, photo: Path, network: Any, torch: Any) -> LocalFeatures:
        pixels = load_photo(photo, max_side=None).pixels
        height, width = pixels.shape[:2]
        scale = 1.0 if self.side is None else self.side / max(height, width)
        size = round(width * scale), round(height * scale)
        if scale != 1.0:
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255
        found = network(image)[0]
        order = np.argsort(-found.keypoint_scores.numpy(), kind="stable")
        ratio = np.array([width / size[0], height / size[1]], np.float32)
        return LocalFeatures(
            keypoints=((found.keypoints.numpy()[order] + 0.5) * ratio - 0.5).astype(np.float32),
            scales=np.ones(len(order), np.float32),
            scores=found.keypoint_scores.numpy()[order],
            descriptors=found.descriptors.numpy()[order],
            image_size=(height, width),
        )
