"""Local features without a network: RootSIFT in the project's own structure, real and quick to compute."""

from pathlib import Path

import cv2
import numpy as np

from delf_jax.features import LocalFeatures


def sift_features(path: Path, count: int = 250) -> LocalFeatures:
    """The strongest SIFT features of a photo, centred so that cosines tell them apart."""
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    keypoints, descriptors = cv2.SIFT_create(count).detectAndCompute(grey, None)
    order = np.argsort([-point.response for point in keypoints], kind="stable")[:count]
    keypoints = [keypoints[i] for i in order]
    root = np.sqrt(descriptors[order] / descriptors[order].sum(axis=1, keepdims=True)) - 0.06
    return LocalFeatures(
        keypoints=np.array([point.pt for point in keypoints], np.float32),
        scales=np.array([4 / point.size for point in keypoints], np.float32),
        scores=np.array([point.response for point in keypoints], np.float32),
        descriptors=(root / np.linalg.norm(root, axis=1, keepdims=True)).astype(np.float32),
        image_size=grey.shape,
    )
