"""Programs that take and return the library's classes can be written to a file by ``jax.export``."""

from typing import Any

import jax
import jax.export
import numpy as np
import pytest

from delf_jax.features import LocalFeatures
from retrieval.verification.ransac import Verification

pytest.importorskip("flatbuffers", reason="jax.export writes files with flatbuffers")


@pytest.mark.parametrize(
    "value",
    [
        LocalFeatures(*(np.ones((2, 3), np.float32) for _ in range(5)), valid=np.ones((2, 3), bool)),
        Verification(np.eye(3, dtype=np.float32), np.ones(4, bool), np.int32(4), np.float32(-9)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_program_comes_back_from_a_file(value: Any) -> None:
    program = jax.jit(lambda given: jax.tree.map(lambda leaf: leaf + leaf, given))
    written = jax.export.export(program, platforms=["cpu", "cuda", "tpu"])(value).serialize()
    found = jax.export.deserialize(written).call(value)
    assert type(found) is type(value)
    jax.tree.map(np.testing.assert_array_equal, found, program(value))
