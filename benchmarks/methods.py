"""What is compared: every method that turns photos into local features, and how its features like to be matched."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import delf_jax
from benchmarks.exhaustive import Matching
from benchmarks.feature_cache import Extract
from benchmarks.rootsift import RootSift
from delf_jax import scorers
from delf_jax.command import fitting
from delf_jax.command.report import Report
from delf_jax.descriptors import describe
from delf_jax.features import LocalFeatures
from delf_jax.head import Head
from delf_jax.loading import model_paths
from delf_jax.settings import Scorer

# More than any photo has: the budget is cut after scoring.
_ALL_PEAKS = 4000


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the table before a budget of features is chosen.

    Attributes:
        name: what ``--methods`` calls it.
        extract: photos to features.
        description: plain JSON values that decide what ``extract`` gives, under which it is kept.
        finish: what is done to the features of one photo after they were kept; strongest first.
        matching: where the method has its own way, for ``exhaustive.search``; None: the index is searched.
    """

    name: str
    extract: Extract
    description: dict[str, Any]
    finish: Callable[[LocalFeatures], LocalFeatures] = lambda features: features
    matching: Matching | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """What a method is made for.

    Attributes:
        max_features: the largest budget that will be asked for.
        collection: unlabelled photos of the collection that is searched, for methods that adapt to it.
        cache: folder for what is fitted.
    """

    max_features: int
    collection: Sequence[Path]
    cache: Path


def rootsift(request: Request) -> Method:
    """SIFT as its users run it: square-rooted descriptors, CLAHE, ratio test; keypoints exact to a few pixels."""
    sift = RootSift(max_features=request.max_features)
    description = {"method": "rootsift", "opencv": cv2.__version__, **dataclasses.asdict(sift)}
    matching = Matching(ratio=0.85, inlier_radius=10.0, cell=8.0)
    return Method("rootsift", lambda photos: [sift(photo) for photo in photos], description, matching=matching)


def norm(request: Request) -> Method:
    """The packaged model, features ranked by the norm of their activations."""
    return _delf("norm", Head.open(model_paths("delf-r50")[1]), request)


def foreground(request: Request) -> Method:
    """The packaged model, features ranked by the foreground vector."""
    return _delf("foreground", Head.open(model_paths("delf-r50")[1]), request)


def foreground_adapted(request: Request) -> Method:
    """As ``foreground``, with PCA and foreground vector fitted on the searched photos, as ``extract --adapt`` does."""
    return _delf("foreground", _adapted_head(request), request, name="foreground-adapt")


def norm_adapted(request: Request) -> Method:
    """As ``norm``, with the PCA fitted on the searched collection."""
    return _delf("norm", _adapted_head(request), request, name="norm-adapt")


METHODS: dict[str, Callable[[Request], Method]] = {
    "rootsift": rootsift,
    "norm": norm,
    "foreground": foreground,
    "norm-adapt": norm_adapted,
    "foreground-adapt": foreground_adapted,
}


def _delf(scorer: Scorer, head: Head, request: Request, *, name: str | None = None) -> Method:
    """One scorer and head. The encoder runs once for all of them: what it saw is kept without scorer and projection."""
    raw = delf_jax.load(head=Head(), scorer="norm", max_features=_ALL_PEAKS)
    described = {"method": "delf-jax", "weights": raw.fingerprint, **raw.settings.to_json()}
    arrays = head.arrays()

    def finish(features: LocalFeatures) -> LocalFeatures:
        dense = features.descriptors * features.scores[:, None]
        scores = np.asarray(scorers.score(dense, arrays, scorer))
        rows = np.argsort(-scores, kind="stable")[: request.max_features]
        rows = rows[scores[rows] > 0]
        return LocalFeatures(
            keypoints=features.keypoints[rows],
            scales=features.scales[rows],
            scores=scores[rows],
            descriptors=np.asarray(describe(dense[rows], arrays)),
            image_size=features.image_size,
        )

    return Method(name or scorer, raw, described, finish=finish)


def _adapted_head(request: Request) -> Head:
    """The head fitted on the collection; kept in the cache, because fitting runs the encoder over every photo."""
    extractor = delf_jax.load()
    names = "\0".join(os.fspath(photo) for photo in request.collection)
    key = hashlib.sha256(f"{extractor.fingerprint}\0{fitting.DIMENSION}\0{names}".encode()).hexdigest()[:16]
    path = request.cache / f"adapted-{key}.safetensors"
    if not path.exists():
        head = fitting.adapted_head(extractor, [os.fspath(photo) for photo in request.collection], Report(json=False))
        request.cache.mkdir(parents=True, exist_ok=True)
        head.save(path)
    return Head.open(path)
