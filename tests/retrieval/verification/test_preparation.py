"""What is compiled ahead is what verification then uses; errors and interrupts pass."""

import logging
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from delf_jax.features import LocalFeatures
from retrieval.verification import preparation, ransac, verify
from retrieval.verification.preparation import prepared
from tests.retrieval.sift import sift_features


def test_photos_are_then_verified_without_compiling(demo_photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "TRIALS", 100)  # its program is compiled sooner
    photos = [sift_features(demo_photos / f"{name}.jpg") for name in ("box", "box_in_scene")]
    most = max(map(len, photos))
    with prepared(1, features=most, dimension=photos[0].descriptors.shape[1], model="similarity"):
        pass
    before = ransac._verify_all._cache_size(), verify.nearest_in_photos._cache_size()
    assert verify.match(*(first_rows(photo, most) for photo in photos), model="similarity").putative > 0
    assert (ransac._verify_all._cache_size(), verify.nearest_in_photos._cache_size()) == before


def first_rows(photo: LocalFeatures, count: int) -> LocalFeatures:
    """The photo with its last feature repeated, so that all photos have so many."""
    rows = np.minimum(np.arange(count), len(photo) - 1)
    fields = (photo.keypoints, photo.scales, photo.scores, photo.descriptors)
    return LocalFeatures(*(field[rows] for field in fields), image_size=photo.image_size)


def test_an_error_is_logged_and_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("no memory")

    monkeypatch.setattr(preparation, "verify_candidates", fail)
    with caplog.at_level(logging.WARNING), prepared(1, features=10, dimension=8) as thread:
        thread.join()
    assert "no memory" in caplog.text


def test_an_interrupt_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(preparation, "verify_candidates", lambda *_: done.wait(60))
    with pytest.raises(KeyboardInterrupt), prepared(1, features=10, dimension=8) as thread:
        raise KeyboardInterrupt
    assert thread.is_alive()
    assert thread.daemon
    done.set()
    thread.join()
