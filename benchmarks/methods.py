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
from delf_jax.command import fitting
from delf_jax.command.report import Report


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the table before a budget of features is chosen.

    Attributes:
        name: what ``--methods`` calls it.
        extract: photos to features, strongest first.
        description: plain JSON values that decide the features.
        matching: where the method has its own way, for ``exhaustive.search``; None: the index is searched.
    """

    name: str
    extract: Extract
    description: dict[str, Any]
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
    return _delf("norm", delf_jax.load(scorer="norm", max_features=request.max_features))


def foreground(request: Request) -> Method:
    """The packaged model, features ranked by the foreground vector."""
    return _delf("foreground", delf_jax.load(scorer="foreground", max_features=request.max_features))


def foreground_adapted(request: Request) -> Method:
    """As ``foreground``, with PCA and foreground vector fitted on the searched photos, as ``extract --adapt`` does."""
    head = _adapted_head(request)
    return _delf("foreground-adapt", delf_jax.load(scorer="foreground", max_features=request.max_features, head=head))


def norm_adapted(request: Request) -> Method:
    """As ``norm``, with the PCA fitted on the searched collection."""
    head = _adapted_head(request)
    return _delf("norm-adapt", delf_jax.load(scorer="norm", max_features=request.max_features, head=head))


METHODS: dict[str, Callable[[Request], Method]] = {
    "rootsift": rootsift,
    "norm": norm,
    "foreground": foreground,
    "norm-adapt": norm_adapted,
    "foreground-adapt": foreground_adapted,
}


def _delf(name: str, extractor: delf_jax.Extractor) -> Method:
    description = {"method": "delf-jax", "weights": extractor.fingerprint, **extractor.settings.to_json()}
    return Method(name, extractor, description)


def _adapted_head(request: Request) -> Path:
    """The head fitted on the collection; kept in the cache, because fitting runs the encoder over every photo."""
    extractor = delf_jax.load()
    names = "\0".join(os.fspath(photo) for photo in request.collection)
    key = hashlib.sha256(f"{extractor.fingerprint}\0{fitting.DIMENSION}\0{names}".encode()).hexdigest()[:16]
    path = request.cache / f"adapted-{key}.safetensors"
    if not path.exists():
        fitted = fitting.fit(extractor, [os.fspath(photo) for photo in request.collection], Report(json=False))
        head = dataclasses.replace(
            extractor.head,
            pca=fitting.projection(fitted, fitting.DIMENSION),
            foreground=fitted.foreground.solve().w.astype(np.float32),
        )
        request.cache.mkdir(parents=True, exist_ok=True)
        head.save(path)
    return path
