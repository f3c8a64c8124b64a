"""Matches between two imaginary photos of 1024 x 768 pixels under a known transform."""

from typing import NamedTuple

import cv2
import numpy as np

HEIGHT, WIDTH = 768, 1024


class Planted(NamedTuple):
    """Photo pairs: src, dst [b, n, 2]; true [b, n]; transform [b, 3, 3]; scales [b, n] of the features."""

    src: np.ndarray
    dst: np.ndarray
    true: np.ndarray
    transform: np.ndarray
    src_scales: np.ndarray
    dst_scales: np.ndarray


def apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    moved = np.concatenate([points, np.ones_like(points[..., :1])], -1) @ np.swapaxes(transform, -1, -2).astype(float)
    return moved[..., :2] / moved[..., 2:]


def planar(
    model: str, *, pairs: int, matches: int, outliers: float, noise: float = 1.0, turn: float = 0.6, seed: int = 0
) -> Planted:
    """Points of a plane; the second photo is turned by at most ``turn`` radians, stretched, moved and tilted."""
    rng = np.random.default_rng(seed)
    middle = np.array([WIDTH, HEIGHT]) / 2
    transforms = []
    for _ in range(pairs):
        angle, size = rng.uniform(-turn, turn), rng.uniform(0.6, 1.5)
        linear = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if model != "similarity":
            linear = linear @ np.array([[rng.uniform(0.7, 1.4), rng.uniform(-0.3, 0.3)], [0, 1]])
        transform = np.eye(3)
        transform[:2, :2], transform[:2, 2] = linear, middle - linear @ middle + rng.uniform(-60, 60, 2)
        if model == "homography":
            tilt = np.eye(3)
            tilt[2, :2] = rng.uniform(-4e-4, 4e-4, 2)
            transform = transform @ np.linalg.inv(tilt)
        transforms.append(transform / transform[2, 2])
    transform = np.stack(transforms)
    src = rng.uniform(0, 1, (pairs, matches, 2)) * [WIDTH, HEIGHT]
    dst = apply(transform, src) + noise * rng.normal(size=src.shape)
    true = np.broadcast_to(rng.permutation(matches) >= round(outliers * matches), src.shape[:2])
    dst = np.where(true[..., None], dst, rng.uniform(0, 1, dst.shape) * [WIDTH, HEIGHT])
    # A pyramid with a factor of the square root of 2 between its levels knows a scale to half a step.
    magnification = np.sqrt(np.abs(np.linalg.det(transform[:, :2, :2])))[:, None]
    src_scales = 2.0 ** rng.uniform(-1, 1, true.shape)
    dst_scales = src_scales / magnification * 2.0 ** rng.uniform(-0.25, 0.25, true.shape)
    return Planted(src.astype("f"), dst.astype("f"), true, transform, src_scales.astype("f"), dst_scales.astype("f"))


def two_views(*, pairs: int, matches: int, outliers: float, noise: float = 0.5, seed: int = 0) -> Planted:
    """Points of a room seen by two cameras; ``transform`` is the fundamental matrix."""
    rng = np.random.default_rng(seed)
    camera = np.array([[700.0, 0, WIDTH / 2], [0, 700, HEIGHT / 2], [0, 0, 1]])
    src, dst, fundamental = [], [], []
    for _ in range(pairs):
        points = np.c_[rng.uniform(-3, 3, (matches, 2)), rng.uniform(5, 12, matches)]
        turn = cv2.Rodrigues(rng.uniform(-0.15, 0.15, 3))[0]
        x, y, z = rng.uniform(0.5, 1.5) * rng.choice([-1, 1]), *rng.uniform(-0.5, 0.5, 2)
        src.append(apply(camera, points[:, :2] / points[:, 2:]))
        moved = points @ turn.T + [x, y, z]
        dst.append(apply(camera, moved[:, :2] / moved[:, 2:]))
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        inverse = np.linalg.inv(camera)
        fundamental.append(inverse.T @ cross @ turn @ inverse)
    dst = np.stack(dst) + noise * rng.normal(size=(pairs, matches, 2))
    true = np.broadcast_to(rng.permutation(matches) >= round(outliers * matches), dst.shape[:2])
    dst = np.where(true[..., None], dst, rng.uniform(0, 1, dst.shape) * [WIDTH, HEIGHT])
    ones = np.ones(true.shape, "f")
    return Planted(np.stack(src).astype("f"), dst.astype("f"), true, np.stack(fundamental), ones, ones)
