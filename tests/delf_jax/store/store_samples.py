"""Writers of small stores, photos for them, and commits changed under a checksum that is right."""

from pathlib import Path

import numpy as np

from delf_jax.features import Domain, LocalFeatures
from delf_jax.files.envelope import decode_envelope, encode_envelope
from delf_jax.settings import ExtractionSettings
from delf_jax.store.commit_log import VERSION
from delf_jax.store.manifest import FORMAT
from delf_jax.store.parts import StoredPhoto
from delf_jax.store.writer import StoreWriter

DIMENSION = 8


def writer(path: str | Path, **changes: object) -> StoreWriter:
    arguments = {"settings": ExtractionSettings(), "fingerprint": "f" * 64, "dimension": DIMENSION} | changes
    return StoreWriter(path, **arguments)  # type: ignore[arg-type]


def photo(name: str, *, count: int = 7, seed: int = 0) -> StoredPhoto:
    random = np.random.default_rng(seed)
    descriptors = random.standard_normal((count, DIMENSION)).astype(np.float32)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-9)
    features = LocalFeatures(
        keypoints=random.uniform(-1, 4000, (count, 2)).astype(np.float32),
        scales=random.uniform(0.1, 2, count).astype(np.float32),
        scores=-np.sort(-random.uniform(0, 9, count).astype(np.float32)),
        descriptors=descriptors,
        image_size=(3000, 4000),
        domain=Domain(0.5, 100, 4000, 2900.25, 9e6, 3.90625) if seed % 2 else None,
    )
    return StoredPhoto(name, 1000 + seed, 123_456_789_012_345_678, f"{seed:064x}", features)


def assert_same(a: StoredPhoto, b: StoredPhoto) -> None:
    assert a[:4] == b[:4]
    assert a.features.image_size == b.features.image_size
    assert a.features.domain == b.features.domain
    for name in ("keypoints", "scales", "scores"):
        np.testing.assert_array_equal(getattr(a.features, name), getattr(b.features, name))
        assert getattr(a.features, name).dtype == np.float32
    assert a.features.descriptors.dtype == np.float32
    assert a.features.descriptors.shape == b.features.descriptors.shape
    np.testing.assert_allclose(a.features.descriptors, b.features.descriptors, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(a.features.descriptors, axis=1), 1, atol=1e-6)


def commits(store: Path) -> list[Path]:
    """The commits of a store on a disk, the oldest one first."""
    return sorted((store / "commits").glob("[0-9]*.json"))


def snapshots(store: Path) -> list[Path]:
    """The snapshots of a store on a disk, the oldest one first."""
    return sorted((store / "commits").glob("snapshot-*.json"))


def changed(commit: Path, *, version: int = VERSION, **changes: object) -> None:
    """Changes the body of a commit, under a checksum that is right again."""
    body = decode_envelope(commit.read_bytes(), format=FORMAT, newest=VERSION).body
    commit.write_bytes(encode_envelope(FORMAT, version, body | changes))
