"""The learned peer runs on its published weights, or says what is missing."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.aliked import Aliked
from benchmarks.errors import PeerMissing
from benchmarks.peer_matching import putative


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(PeerMissing, match=r"aliked-n16\.pth is missing in the data folder"):
        assert Aliked(tmp_path / "aliked-n16.pth").description


@pytest.mark.slow
def test_a_shifted_window_has_the_same_features_elsewhere(shared_data: Path, demo_photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("kornia")
    photo = cv2.imread(str(demo_photos / "graf1.jpg"))
    assert photo is not None
    photo = cv2.resize(photo, (320, 256), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / "a.png"), photo[:192, :256])
    cv2.imwrite(str(tmp_path / "b.png"), photo[32:224, 64:])
    aliked = Aliked(shared_data / "peer_weights" / "aliked-n16.pth", max_features=200)
    a, b = aliked([tmp_path / "a.png", tmp_path / "b.png"])
    assert len(a) == 200
    assert np.all(np.diff(a.scores) <= 0)
    np.testing.assert_allclose(np.linalg.norm(a.descriptors, axis=1), 1, atol=1e-4)
    pairs, _ = putative(a.descriptors, b.descriptors)
    shift = a.keypoints[pairs[:, 0]] - b.keypoints[pairs[:, 1]]
    exact = np.linalg.norm(shift - [64, 32], axis=1) < 1.5
    assert exact.mean() > 0.7
