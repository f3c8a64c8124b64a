"""Refinement of a mask by GrabCut, which moves its coarse outline to the edges of colour in the photo."""

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
    """The mask refined by the colours of the photo (Rother, Kolmogorov, Blake: GrabCut, SIGGRAPH 2004), with OpenCV.

    Pixels of the mask start as probable foreground, and as certain foreground where ``activation`` is at least
    ``sure``. Pixels outside the mask start as probable background, and as certain background where the map is zero.
    Returns the mask unchanged if it is empty or covers the photo, or if GrabCut finds no foreground.

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
