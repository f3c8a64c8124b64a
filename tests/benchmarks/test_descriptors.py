"""The benchmark of projections, on planted views: what tells spots apart must win over what changes with the view."""

import numpy as np

from benchmarks import descriptors
from benchmarks.descriptors import Pair


def planted(seed: int) -> descriptors.Half:
    """Six landmarks of two photos each; 4 directions tell spots apart, 4 change widely with the view."""
    rng = np.random.default_rng(seed)
    photos, pairs = {}, []
    for landmark in range(6):
        spots = rng.normal(size=(200, 12)) * ([1.0] * 4 + [0.0] * 8)
        views = [spots + rng.normal(size=spots.shape) * ([0.05] * 4 + [1.5] * 4 + [0.05] * 4) for _ in range(2)]
        a, b = (f"{landmark}/{name}.jpg" for name in "ab")
        photos |= {name: one / np.linalg.norm(one, axis=1, keepdims=True) for name, one in zip((a, b), views)}
        pairs.append(Pair(a, b, np.stack([np.arange(200)] * 2, axis=1)))
    return descriptors._half(photos, pairs)


def test_what_pairs_teach_wins_where_views_change_widely(monkeypatch) -> None:
    monkeypatch.setattr(descriptors, "DIMENSIONS", (4,))
    teaching, testing = planted(0), planted(1)
    scores = {
        (name, dimension): descriptors.score(testing, projection)
        for name, dimension, projection in descriptors.projections(teaching)
    }
    for measure in (0, 1):
        assert scores["learned, 0.05", 4][measure] > 0.3
        assert scores["pca", 4][measure] < 0.1
        assert scores["none", 12][measure] < scores["learned, 0.05", 4][measure]


def test_the_measures_by_hand() -> None:
    east, north, west = np.eye(2)[0], np.eye(2)[1], -np.eye(2)[0]
    photos = {"x/a": np.stack([east, north]), "x/b": np.stack([east, west]), "y/c": np.stack([north, west])}
    pairs = [Pair("x/a", "x/b", np.array([[0, 0], [1, 1]]))]
    half = descriptors._half(photos, pairs)
    # East finds itself, and nothing of the other landmark is as near. North is as near to east as to its partner west,
    # where the first one counts, and the other landmark has north itself.
    assert descriptors.score(half, lambda unit: unit) == (0.5, 0.5)
