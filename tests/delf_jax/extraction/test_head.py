"""Heads keep every array through their file, know what they can do, and refuse arrays that do not fit together."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from delf_jax.errors import ModelError
from delf_jax.extraction.head import Head
from delf_jax.extraction.pca import Pca
from delf_jax.files import model_file

PCA = Pca(np.array([1, 2], np.float32), np.array([[0.6, 0.8]], np.float32), np.array([4], np.float32))
FOREGROUND = np.array([0, 1], np.float32)
ATTENTION = {
    "hidden_kernel": np.ones((2, 3), np.float32),
    "hidden_bias": np.zeros(3, np.float32),
    "kernel": np.ones(3, np.float32),
    "bias": np.zeros((), np.float32),
}
AUTOENCODER = {
    "encode_kernel": np.ones((2, 5), np.float32),
    "encode_bias": np.zeros(5, np.float32),
    "decode_kernel": np.ones((5, 2), np.float32),
    "decode_bias": np.zeros(2, np.float32),
}


def test_a_head_comes_back_from_its_file(tmp_path: Path) -> None:
    head = Head(
        pca=PCA,
        whiten=False,
        foreground=FOREGROUND,
        attention=ATTENTION,
        autoencoder=AUTOENCODER,
        layer="conv5",
        log10_nfa_threshold=-3.5,
        released_settings={"scales": [0.5, 1.0]},
        notes={"command": "delf-jax pca"},
    )
    head.save(tmp_path / "head.safetensors")
    found = Head.open(tmp_path / "head.safetensors")
    assert jax.tree.structure(found.arrays()) == jax.tree.structure(head.arrays())
    jax.tree.map(np.testing.assert_array_equal, found.arrays(), head.arrays())
    for field in ("whiten", "layer", "log10_nfa_threshold", "released_settings", "notes"):
        assert getattr(found, field) == getattr(head, field)


def test_whitening_is_part_of_the_projection() -> None:
    # The variance 4 divides by 2.
    np.testing.assert_allclose(Head(pca=PCA).arrays()["pca_projection"], [[0.3], [0.4]], rtol=1e-6)
    np.testing.assert_allclose(Head(pca=PCA, whiten=False).arrays()["pca_projection"], [[0.6], [0.8]], rtol=1e-6)


def test_scorers_and_dimension_follow_from_the_arrays() -> None:
    assert Head().scorers == ("norm",)
    assert Head(foreground=FOREGROUND, attention=ATTENTION).scorers == ("norm", "foreground", "learned")
    assert Head().dimension is None
    assert Head(pca=PCA).dimension == 1
    assert Head(pca=PCA, autoencoder=AUTOENCODER).dimension == 5
    with pytest.raises(ModelError, match="m: this head has no 'foreground' scorer; it has: norm, learned"):
        Head(attention=ATTENTION).require("foreground", name="m")


@pytest.mark.parametrize(
    ("tensors", "description", "message"),
    [
        ({}, {"kind": "backbone"}, "this is a backbone file, not a head"),
        ({}, {"whiten": "yes"}, "its description is not that of a head"),
        ({"pca_mean": PCA.mean}, {}, "lacks pca_basis"),
        ({"attention.kernel": ATTENTION["kernel"]}, {}, "lacks attention.hidden_kernel"),
        ({"foreground": np.ones((1, 2), np.float32)}, {}, "its foreground vector is not a vector"),
        (
            {"pca_mean": np.ones(3, np.float32), "pca_basis": PCA.basis, "pca_variance": PCA.variance},
            {},
            "its PCA has arrays of different sizes",
        ),
    ],
)
def test_what_is_no_head_is_refused(
    tensors: dict[str, np.ndarray], description: dict[str, Any], message: str, tmp_path: Path
) -> None:
    whole = {"kind": "head", "whiten": True, "layer": "conv4", "log10_nfa_threshold": None, "notes": {}}
    model_file.write(tmp_path / "head.safetensors", tensors, whole | description)
    with pytest.raises(ModelError, match=message):
        Head.open(tmp_path / "head.safetensors")
