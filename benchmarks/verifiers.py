"""Methods that verify a batch of candidate photos: this project's, and its peers', called as their users call them.

Peers take one photo at a time. Those in C++ run in two threads, each with a share of the candidates.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float

from benchmarks.errors import PeerMissing
from benchmarks.planted import Problem
from retrieval.verification import ransac
from retrieval.verification.transforms import Model

# Inlier threshold in pixels, the same for all methods.
THRESHOLD = 10.0
THREADS = 2
# Trials of scikit-image in the official matching code, and trials that OpenCV needs for 90 % outliers.
OFFICIAL_TRIALS = 1000
PATIENT_TRIALS = 5000

Points = Float[np.ndarray, "n 2"]
One = Callable[[Points, Points], tuple[Any, Any]]


class Answer(NamedTuple):
    """Transforms float64 [c, 3, 3], NaN where none was found, and inliers bool [c, n]."""

    transform: Float[np.ndarray, "c 3 3"]
    inliers: Bool[np.ndarray, "c n"]


class Verifier(NamedTuple):
    """``run`` is what is timed; ``read`` brings its result into one form afterwards."""

    run: Callable[[Problem], Any]
    read: Callable[[Problem, Any], Answer]


def ours(model: Model, *, scales: bool) -> Verifier:
    """``retrieval.ransac.estimate``, from NumPy arrays to NumPy arrays, the number of false alarms included."""
    key = jax.random.key(0)

    def run(problem: Problem) -> Any:
        found = ransac.estimate(
            problem.src,
            problem.dst,
            np.ones(problem.true.shape, bool),
            key=key,
            model=model,
            threshold=THRESHOLD,
            nfa=ransac.NfaSettings(target_size=(480.0, 640.0)),
            scales=(problem.src_scales, problem.dst_scales) if scales else None,
        )
        return jax.device_get(found)

    def read(problem: Problem, found: ransac.Verification) -> Answer:
        known = found.count[:, None, None] > 0
        return Answer(np.where(known, found.transform.astype(np.float64), np.nan), np.asarray(found.inliers))

    return Verifier(run, read)


def peers(model: Model) -> tuple[dict[str, Verifier], dict[str, str]]:
    """The installed peers that have the model, by name, and the reasons why others are missing."""
    found: dict[str, Verifier] = {}
    missing: dict[str, str] = {}
    for name, solver in _solvers(model).items():
        try:
            found[name] = _in_threads(solver(), threads=1 if name == "scikit-image" else THREADS)
        except PeerMissing as error:
            missing[name] = str(error)
    return found, missing


def _solvers(model: Model) -> Mapping[str, Callable[[], One]]:
    opencv: dict[str, Callable[[], One]] = {
        "OpenCV RANSAC": lambda: _opencv(model, cv2.RANSAC, 2000),
        f"OpenCV RANSAC {PATIENT_TRIALS}": lambda: _opencv(model, cv2.RANSAC, PATIENT_TRIALS),
    }
    if model != "similarity":
        # OpenCV has no MAGSAC for similarities.
        opencv["OpenCV USAC_MAGSAC"] = lambda: _opencv(model, cv2.USAC_MAGSAC, 2000)
    others: dict[str, Callable[[], One]] = {}
    if model == "affine":
        others["pycolmap"] = lambda: _pycolmap("estimate_affine2d_robust", "tgt_from_src")
    elif model == "homography":
        others["pycolmap"] = lambda: _pycolmap("estimate_homography_matrix", "H")
        others["PoseLib"] = _poselib
        others["pydegensac"] = _pydegensac
    return {**opencv, **others, "scikit-image": lambda: _scikit_image(model)}


def _opencv(model: Model, method: int, trials: int) -> One:
    options = {"method": method, "ransacReprojThreshold": THRESHOLD, "maxIters": trials}
    estimate: Any = {
        "similarity": cv2.estimateAffinePartial2D,
        "affine": cv2.estimateAffine2D,
        "homography": cv2.findHomography,
    }[model]
    return lambda src, dst: estimate(src, dst, **options)


def _pycolmap(function: str, transform: str) -> One:
    try:
        import pycolmap  # optional: a peer
    except ImportError as error:
        raise PeerMissing("pycolmap is not installed; pip install delf-jax[peers]") from error
    estimate = getattr(pycolmap, function)
    options = pycolmap.RANSACOptions()
    options.max_error = THRESHOLD

    def one(src: Points, dst: Points) -> tuple[Any, Any]:
        found = estimate(src, dst, options)
        return (None, None) if found is None else (found[transform], found["inlier_mask"])

    return one


def _poselib() -> One:
    try:
        import poselib  # optional: a peer
    except ImportError as error:
        raise PeerMissing("PoseLib is not installed; pip install delf-jax[peers]") from error

    def one(src: Points, dst: Points) -> tuple[Any, Any]:
        transform, report = poselib.estimate_homography(src, dst, {"max_reproj_error": THRESHOLD})
        return transform, report["inliers"]

    return one


def _pydegensac() -> One:
    try:
        import pydegensac  # optional: a peer
    except ImportError as error:
        raise PeerMissing("pydegensac is not installed; pip install delf-jax[peers]") from error
    return lambda src, dst: pydegensac.findHomography(src, dst, THRESHOLD, seed=0)


def _scikit_image(model: Model) -> One:
    try:
        from skimage import measure, transform  # optional: a peer
    except ImportError as error:
        raise PeerMissing("scikit-image is not installed; pip install delf-jax[peers]") from error
    kind, size = {
        "similarity": (transform.SimilarityTransform, 2),
        "affine": (transform.AffineTransform, 3),
        "homography": (transform.ProjectiveTransform, 4),
    }[model]

    def one(src: Points, dst: Points) -> tuple[Any, Any]:
        found, inliers = measure.ransac(
            (src, dst), kind, min_samples=size, residual_threshold=THRESHOLD, max_trials=OFFICIAL_TRIALS, rng=0
        )
        return (None, None) if found is None else (found.params, inliers)

    return one


def _in_threads(one: One, *, threads: int) -> Verifier:
    pool = ThreadPoolExecutor(threads)

    def share(problem: Problem, part: int) -> list[tuple[Any, Any]]:
        return [one(src, dst) for src, dst in zip(problem.src[part::threads], problem.dst[part::threads], strict=True)]

    def run(problem: Problem) -> list[list[tuple[Any, Any]]]:
        return list(pool.map(lambda part: share(problem, part), range(threads)))

    def read(problem: Problem, found: list[list[tuple[Any, Any]]]) -> Answer:
        transform, inliers = np.full((len(problem.src), 3, 3), np.nan), np.zeros(problem.true.shape, bool)
        for part, answers in enumerate(found):
            for row, (matrix, where) in zip(range(part, len(problem.src), threads), answers, strict=True):
                if matrix is not None and np.any(matrix):
                    transform[row] = matrix if len(matrix) == 3 else [*matrix, (0, 0, 1)]
                    inliers[row] = np.ravel(where)
        return Answer(transform, inliers)

    return Verifier(run, read)
