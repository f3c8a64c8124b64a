"""Queries ranked against several indices: as one index of all their photos answers."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import retrieval
from delf_jax.features import LocalFeatures
from retrieval import asmk
from retrieval.evaluation.rank_all import rank_all
from retrieval.search import FirstStage, SearchSettings
from tests.calibrations import CALIBRATION
from tests.retrieval.sift import sift_features

FEW = dataclasses.replace(CALIBRATION, verified=3, photos=1, photos_tested=6, fall=8.0, thresholds=(-2.0,))
NAMES = ("graf1", "leuvenA", "box", "coffee", "camera", "home")


@pytest.fixture(scope="module")
def photos(demo_photos: Path) -> dict[str, LocalFeatures]:
    features = {name: sift_features(demo_photos / f"{name}.jpg") for name in (*NAMES, "leuvenB", "graf3")}
    return features | {"nothing": LocalFeatures.empty((60, 80), 128)}


def build(photos: dict[str, LocalFeatures], names: tuple[str, ...]) -> retrieval.Index:
    index = retrieval.Index.build(
        ((name, photos[name]) for name in names), backend="exact", threshold=-8.0, fingerprint=FEW.fingerprint
    )
    # The limit is that of all photos together, not of each part.
    index.calibrate(FEW)
    index.aggregate(asmk.Codebook(photos["graf3"].descriptors[:50].astype(np.float32)))
    return index


@pytest.mark.parametrize("stage", ["votes", "asmk"])
@pytest.mark.parametrize("verify", [0, 3])
def test_shards_answer_as_one_index(stage: FirstStage, verify: int, photos: dict[str, LocalFeatures]) -> None:
    whole, parts = build(photos, NAMES), [build(photos, names) for names in (NAMES[:2], NAMES[2:3], NAMES[3:])]
    queries = [photos["leuvenB"], photos["nothing"], photos["graf3"]]
    how = {"first_stage": stage, "verify": verify, "settings": SearchSettings(neighbours=20)}
    steps: list[tuple[int, int]] = []
    shards = [lambda index=index: index for index in parts]
    found = rank_all(queries, shards, **how, progress=lambda *step: steps.append(step))
    alone = rank_all(queries, [lambda: whole], **how)
    for query, one, other in zip(queries, found, alone, strict=True):
        np.testing.assert_array_equal(one.photos, other.photos)
        np.testing.assert_allclose(one.confidence, other.confidence)
        expected = whole.search(query, **how, top=len(NAMES)).matches
        assert [NAMES[place] for place in other.photos] == [match.image for match in expected]
        if verify:
            sure = [-np.inf if match.log10_nfa is None else -match.log10_nfa for match in expected]
            np.testing.assert_allclose(other.confidence, sure)
    assert NAMES[found[0].photos[0]] == "leuvenA"
    assert len(found[1].photos) == 0
    assert steps[-1] == ((3 * 3 + 3, 12) if verify else (9, 9))
