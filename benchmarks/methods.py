"""The methods that ``benchmarks.accuracy`` compares: how each computes features, and how they are matched.

Rows of the packaged model are named by the scorer (``norm``, ``foreground``, ``learned``), then by the dimension of the
descriptors if it is not that of the head (``learned-40``; 1024 means without PCA), and then ``-adapt`` if PCA and
foreground vector are fitted to the searched photos.
"""

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import cv2

import delf_jax
from benchmarks.aliked import Aliked
from benchmarks.errors import Unavailable
from benchmarks.feature_cache import Extract
from benchmarks.peer_matching import Matching
from benchmarks.raw_features import RawFeatures, with_head
from benchmarks.rootsift import RootSift
from delf_cli import head_fitting
from delf_cli.report import Report
from delf_jax.errors import DelfError
from delf_jax.extraction.head import Head
from delf_jax.extraction.pca import Pca
from delf_jax.features import LocalFeatures
from delf_jax.settings import Scorer


@dataclasses.dataclass(frozen=True)
class Method:
    """One method of the table, for any number of features.

    Attributes:
        name: what ``--methods`` calls it.
        extract: photos to features.
        description: plain JSON values that decide what ``extract`` gives, under which it is kept.
        finish: what is done to the features of one photo after they were kept; strongest first.
        matching: where the method has its own way; None: as the library verifies.
    """

    name: str
    extract: Extract
    description: dict[str, Any]
    finish: Callable[[LocalFeatures], LocalFeatures] = lambda features: features
    matching: Matching | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """The settings for which a method is made.

    Attributes:
        max_features: largest number of features that will be measured.
        head: the head file of the packaged model's rows.
        collection: unlabelled photos of the collection that is searched, for methods that adapt to it.
        cache: folder for what is fitted.
        peer_weights: folder of the peers' weights.
    """

    max_features: int
    head: Path
    collection: Sequence[Path]
    cache: Path
    peer_weights: Path


def method(name: str, request: Request) -> Method:
    """The method of a row.

    Raises:
        Unavailable: something that it needs is not here: a package, weights, a scorer that the head does not carry.
        DelfError: there is no such method.
    """
    if name in PEERS:
        return PEERS[name](request)
    found = re.fullmatch(rf"({'|'.join(get_args(Scorer))})(?:-([0-9]+))?(-adapt)?", name)
    if not found:
        raise DelfError(f"{name}: no such method; give {', '.join(PEERS)} or SCORER[-DIMENSION][-adapt]")
    scorer, dimension, adapt = cast(Scorer, found[1]), found[2], found[3]
    head = fitted_head(request.head, request.collection, request.cache) if adapt else Head.open(request.head)
    if scorer not in head.scorers:
        raise Unavailable(f"{request.head.name} has no '{scorer}' scorer")
    return delf(name, scorer, head if dimension is None else of_dimension(head, int(dimension)), request)


def rootsift(request: Request) -> Method:
    """SIFT as users run it: square-rooted descriptors, CLAHE and ratio test. Keypoints are exact to a few pixels."""
    sift = RootSift(max_features=request.max_features)
    description = {"method": "rootsift", "opencv": cv2.__version__, **dataclasses.asdict(sift)}
    matching = Matching(ratio=0.85, inlier_radius=10.0, cell=8.0)
    return Method("rootsift", lambda photos: [sift(photo) for photo in photos], description, matching=matching)


def aliked(request: Request) -> Method:
    """ALIKED as its authors match it: mutual nearest neighbours with cosine 0.75 or more, keypoints exact to pixels.

    Without the bound its smooth descriptors agree on a transform between any two photos.
    """
    # The same features for every budget up to this: they come strongest first.
    network = Aliked(request.peer_weights / "aliked-n16.pth", max_features=max(1000, request.max_features))
    return Method(
        "aliked", network, network.description, matching=Matching(least_cosine=0.75, inlier_radius=10.0, cell=8.0)
    )


def delf(name: str, scorer: Scorer, head: Head, request: Request) -> Method:
    """The packaged backbone with a scorer and a head."""
    raw, arrays = RawFeatures(), head.arrays()
    return Method(
        name,
        raw,
        raw.description,
        finish=lambda features: with_head(features, arrays, scorer, max_features=request.max_features),
    )


def of_dimension(head: Head, dimension: int) -> Head:
    """The head with descriptors of another dimension: fewer PCA components, or no PCA for those of the backbone.

    Raises:
        DelfError: the head's projection has fewer, or it has an autoencoder, which has one dimension.
    """
    if head.autoencoder is not None:
        raise DelfError(f"the head has an autoencoder of {head.dimension} dimensions; leave out the dimension")
    channels = 0 if head.pca is None else len(head.pca.mean)
    if head.pca is None or dimension == channels:
        return dataclasses.replace(head, pca=None)
    if not 1 <= dimension <= len(head.pca.basis):
        raise DelfError(f"the head has {len(head.pca.basis)} dimensions; give at most these, or {channels} for no PCA")
    pca = Pca(head.pca.mean, head.pca.basis[:dimension], head.pca.variance[:dimension])
    return dataclasses.replace(head, pca=pca)


def fitted_head(base: Path, photos: Sequence[Path], cache: Path) -> Head:
    """The head with PCA and foreground vector fitted to photos without labels, as by ``extract --adapt``.

    Kept in the cache, because fitting runs the encoder over every photo.
    """
    extractor = delf_jax.load(head=base)
    digest = hashlib.sha256(f"{extractor.fingerprint}\0{head_fitting.DEFAULT_DIMENSION}".encode())
    for photo in photos:
        digest.update(hashlib.sha256(photo.read_bytes()).digest())
    path = cache / f"fitted-{digest.hexdigest()[:16]}.safetensors"
    if not path.exists():
        head = head_fitting.fit_head(extractor, [os.fspath(photo) for photo in photos], Report(json=False))
        cache.mkdir(parents=True, exist_ok=True)
        head.save(path)
    return Head.open(path)


PEERS: dict[str, Callable[[Request], Method]] = {"rootsift": rootsift, "aliked": aliked}
"""The methods of others."""
