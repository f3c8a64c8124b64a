"""Planted problems: matches between two imaginary photos under a known transform, and the errors of found ones."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from retrieval.verification.transforms import Model

HEIGHT, WIDTH = 480, 640
# Standard deviation of an inlier's coordinates in pixels, drawn between these for every photo.
NOISE = (1.0, 3.0)
# Mean distance in pixels between found and planted transform, below which a photo is a success.
SUCCESS = 5.0


class Problem(NamedTuple):
    """Putative matches of candidate photos, in random order.

    Attributes:
        model: kind of the planted transforms.
        src: float32 [c, n, 2], points (x, y) in pixels of the source photo.
        dst: float32 [c, n, 2], their partners in the target photo.
        true: bool [c, n], which matches follow the transform.
        transform: float64 [c, 3, 3], from source to target points (x, y, 1).
        src_scales: float32 [c, n], scale at which each source feature was found; random for outliers.
        dst_scales: float32 [c, n], the same for the target. The ratio of both is right to a quarter of an octave.
    """

    model: Model
    src: Float[np.ndarray, "c n 2"]
    dst: Float[np.ndarray, "c n 2"]
    true: Bool[np.ndarray, "c n"]
    transform: Float[np.ndarray, "c 3 3"]
    src_scales: Float[np.ndarray, "c n"]
    dst_scales: Float[np.ndarray, "c n"]


class Quality(NamedTuple):
    """How well found transforms agree with the planted ones, for each candidate.

    Attributes:
        error: float [c], mean distance in pixels between the true matches' source points under both transforms;
            infinite if nothing was found.
        success: bool [c], whether the error is below ``SUCCESS``.
        recall: float [c], share of the true matches among the found inliers.
    """

    error: Float[np.ndarray, " c"]
    success: Bool[np.ndarray, " c"]
    recall: Float[np.ndarray, " c"]


def plant(model: Model, *, candidates: int, matches: int, outliers: float, seed: int) -> Problem:
    """Pairs of photos of a plane, rotated by up to 0.5 rad, resized by 0.6 to 1.6, and sheared or tilted by the model.

    Args:
        model: "similarity", "affine" or "homography".
        candidates: number of photo pairs.
        matches: putative matches of each.
        outliers: share of matches that are random; at least four are true.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    transform = np.stack([_transform(model, rng) for _ in range(candidates)])
    src, dst = (np.stack(points) for points in zip(*(_overlap(one, matches, rng) for one in transform), strict=True))
    dst = dst + rng.uniform(*NOISE, (candidates, 1, 1)) * rng.normal(size=dst.shape)
    inliers = max(4, matches - round(outliers * matches))
    true = rng.permuted(np.broadcast_to(np.arange(matches) < inliers, (candidates, matches)), axis=1)
    dst = np.where(true[..., None], dst, rng.uniform(0, 1, dst.shape) * [WIDTH, HEIGHT])
    magnification = np.sqrt(np.abs(np.linalg.det(transform[:, :2, :2])))[:, None]
    src_scales = 2.0 ** rng.uniform(-1, 1, true.shape)
    # A pyramid with a factor of the square root of 2 between its levels knows a scale to half a step.
    dst_scales = src_scales / magnification * 2.0 ** rng.uniform(-0.25, 0.25, true.shape)
    dst_scales = np.where(true, dst_scales, 2.0 ** rng.uniform(-1, 1, true.shape))
    points, scales = np.stack([src, dst]).astype(np.float32), np.stack([src_scales, dst_scales]).astype(np.float32)
    return Problem(model, points[0], points[1], true, transform, scales[0], scales[1])


def judge(problem: Problem, transform: Float[np.ndarray, "c 3 3"], inliers: Bool[np.ndarray, "c n"]) -> Quality:
    """Compares found transforms (NaN if none was found) and inliers with the planted ones."""
    apart = np.linalg.norm(apply(transform, problem.src) - apply(problem.transform, problem.src), axis=-1)
    count = problem.true.sum(axis=1)
    error = np.where(problem.true, apart, 0.0).sum(axis=1) / count
    error = np.where(np.isfinite(error), error, np.inf)
    return Quality(error, error < SUCCESS, (inliers & problem.true).sum(axis=1) / count)


def apply(transform: Float[np.ndarray, "c 3 3"], points: Float[np.ndarray, "c n 2"]) -> Float[np.ndarray, "c n 2"]:
    """Points (x, y), mapped by the transform of their photo."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        moved = points @ np.swapaxes(transform[:, :, :2], 1, 2) + transform[:, None, :, 2]
        return np.asarray(moved[..., :2] / moved[..., 2:])


def _transform(model: Model, rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    angle, size = rng.uniform(-0.5, 0.5), 2.0 ** rng.uniform(-0.7, 0.7)
    linear = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if model != "similarity":
        linear = linear @ np.array([[rng.uniform(0.7, 1.4), rng.uniform(-0.3, 0.3)], [0, 1]])
    middle = np.array([WIDTH, HEIGHT]) / 2
    transform = np.eye(3)
    transform[:2, :2], transform[:2, 2] = linear, middle - linear @ middle + rng.uniform(-60, 60, 2)
    if model == "homography":
        # The tilt leaves the middle of the photo where it is.
        tilt = np.eye(3)
        tilt[2, :2] = rng.uniform(-6e-4, 6e-4, 2)
        tilt[2, 2] = 1 - tilt[2, :2] @ middle
        transform = transform @ tilt
    return np.asarray(transform / transform[2, 2])


def _overlap(
    transform: Float[np.ndarray, "3 3"], count: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Random points that lie in both photos."""
    src, dst = np.zeros((0, 2)), np.zeros((0, 2))
    while len(src) < count:
        points = rng.uniform(0, 1, (4 * count, 2)) * [WIDTH, HEIGHT]
        moved = apply(transform[None], points[None])[0]
        inside = np.all((moved >= 0) & (moved < [WIDTH, HEIGHT]), axis=1)
        src, dst = np.concatenate([src, points[inside]]), np.concatenate([dst, moved[inside]])
    return src[:count], dst[:count]
