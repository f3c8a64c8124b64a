"""Edge-aware refinement of a mask: the map's coarse outline moved to the colours' edges by GrabCut."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8


def refine_mask(
    pixels: UInt8[np.ndarray, "H W 3"],
    activation: Float[np.ndarray, "H W"],
    mask: Bool[np.ndarray, "H W"],
    *,
    sure: float = 0.8,
    iterations: int = 3,
) -> Bool[np.ndarray, "H W"]:
    """Refines ``mask`` by the photo's colours (Rother, Kolmogorov, Blake: GrabCut, SIGGRAPH 2004; OpenCV's).

    Pixels of the mask are probably foreground, surely where ``activation`` is at or above ``sure``; pixels where the
    map is zero are surely background. Where GrabCut finds no foreground, or there is nothing to separate, the mask
    comes back as it was.

    Args:
        pixels: uint8 RGB [H, W, 3].
        activation: float32 [H, W] in 0-1.
        mask: bool [H, W].
    """
    labels = np.where(mask, np.uint8(cv2.GC_PR_FGD), np.uint8(cv2.GC_PR_BGD))
    labels[mask & (activation >= sure)] = cv2.GC_FGD
    labels[~mask & (activation <= 0)] = cv2.GC_BGD
    if mask.all() or not mask.any():
        return mask
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # GrabCut starts from k-means: without this two runs differ
    cv2.grabCut(
        np.ascontiguousarray(pixels), labels, (0, 0, 0, 0), background, foreground, iterations, cv2.GC_INIT_WITH_MASK
    )
    refined = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return refined if refined.any() else mask
