"""RootSIFT, the classical peer: SIFT of OpenCV on contrast-equalised photos, with square-rooted descriptors."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from delf_jax.errors import ImageError
from delf_jax.features import LocalFeatures


@dataclasses.dataclass(frozen=True)
class RootSift:
    """RootSIFT (Arandjelovic and Zisserman, CVPR 2012, section 2) after CLAHE.

    Attributes:
        max_features: most features that are kept.
        contrast: SIFT's contrast threshold; below OpenCV's 0.04, so that dark photos fill the budget too.
        clip: CLAHE's clip limit.
        tiles: CLAHE's grid.
    """

    max_features: int = 1000
    contrast: float = 0.02
    clip: float = 2.0
    tiles: int = 8

    def __call__(self, path: Path) -> LocalFeatures:
        """Features of one photo, strongest first.

        A keypoint's scale is 1 / its diameter, so that scales relate as those of an image pyramid do.

        Raises:
            ImageError: the photo cannot be read.
        """
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            raise ImageError(str(path), "cannot be decoded")
        grey = cv2.createCLAHE(clipLimit=self.clip, tileGridSize=(self.tiles, self.tiles)).apply(grey)
        sift = cv2.SIFT.create(nfeatures=self.max_features, contrastThreshold=self.contrast)
        found, descriptors = sift.detectAndCompute(grey, None)
        if not found:
            return LocalFeatures.empty(grey.shape, 128)
        order = np.argsort([-keypoint.response for keypoint in found], kind="stable")[: self.max_features]
        descriptors = descriptors[order]
        descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-12))
        return LocalFeatures(
            keypoints=np.array([found[i].pt for i in order], np.float32),
            scales=np.array([1 / found[i].size for i in order], np.float32),
            scores=np.array([found[i].response for i in order], np.float32),
            descriptors=descriptors.astype(np.float32),
            image_size=grey.shape,
        )
