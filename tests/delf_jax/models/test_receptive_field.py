"""Derived receptive fields against the published ones and against what cells really see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delf_jax.models import resnet
from delf_jax.models.receptive_field import ReceptiveField, cell_centres, cell_offset, receptive_field
from delf_jax.models.resnet import ResNetConfig

RESNET50, RESNET101 = (3, 4, 6, 3), (3, 4, 23, 3)


@pytest.mark.parametrize(
    ("layout", "blocks", "expected"),
    [
        ("keras_v1", RESNET50, (291, 16)),
        ("tf_slim", RESNET50, (291, 32)),
        ("keras_delf", RESNET50, (291, 16)),
        ("torchvision", RESNET50, (267, 16)),
        ("keras_v1", RESNET101, (835, 16)),
    ],
)
def test_conv4_sees_as_far_as_published(layout: str, blocks: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert receptive_field(ResNetConfig(layout=layout, norm_epsilon=1e-5, blocks=blocks), "conv4") == expected


def test_conv1_and_pool_by_hand() -> None:
    config = ResNetConfig(layout="keras_v1", norm_epsilon=1e-5)
    assert receptive_field(config, "conv1") == ReceptiveField(7, 2)
    # Pool: 7 + 2 * 2 = 11 at 4; three 3x3 at stride 4: 11 + 3 * 8 = 35.
    assert receptive_field(config, "conv2") == ReceptiveField(35, 4)


def test_only_same_padding_moves_centres() -> None:
    sizes = np.array([[640, 480], [641, 479], [642, 482], [1, 2]])
    for layout in ("keras_v1", "torchvision"):
        assert not cell_offset(ResNetConfig(layout=layout, norm_epsilon=1e-5), "conv4", sizes).any()
    slim = ResNetConfig(layout="tf_slim", norm_epsilon=1e-5)
    # The conv1 map has ceil(n / 2) cells; where that is even, SAME pads the pool at the far side only: one cell later.
    expected = np.array([[2, 2], [0, 2], [0, 0], [0, 0]], np.float32)
    np.testing.assert_array_equal(cell_offset(slim, "conv4", sizes), expected)
    traced = jax.jit(lambda size: cell_offset(slim, "conv4", size))(jnp.asarray(sizes))
    np.testing.assert_array_equal(traced, expected)
    assert not cell_offset(slim, "conv1", sizes).any()


def test_centres_of_cells_by_hand() -> None:
    plain = ResNetConfig(layout="keras_v1", norm_epsilon=1e-5)
    centres = cell_centres(plain, "conv4", np.array([[40, 50]]), (2, 3))
    assert centres.tolist() == [[[[0, 0], [16, 0], [32, 0]], [[0, 16], [16, 16], [32, 16]]]]
    slim = ResNetConfig(layout="tf_slim", norm_epsilon=1e-5)
    # 641 rows start at 0, 479 columns at 2 (see above); points are (x, y).
    centres = cell_centres(slim, "conv4", np.array([[641, 479]]), (2, 2))
    assert centres.tolist() == [[[[2, 0], [34, 0]], [[2, 32], [34, 32]]]]


@pytest.mark.parametrize(
    ("layout", "blocks", "shape"),
    [
        ("keras_v1", RESNET50, (641, 1)),
        ("torchvision", RESNET50, (640, 1)),
        ("tf_slim", RESNET50, (640, 1)),
        ("tf_slim", RESNET50, (1, 641)),
        ("keras_delf", RESNET50, (641, 9)),
        ("keras_v1", RESNET101, (1, 1800)),
    ],
)
def test_a_cell_sees_exactly_its_receptive_field(layout: str, blocks: tuple[int, ...], shape: tuple[int, int]) -> None:
    """With positive kernels and no biases a cell is above zero exactly if it sees the only line that is not black."""
    config = ResNetConfig(layout=layout, norm_epsilon=1e-5, blocks=blocks, width=1)
    params = jax.tree.map(
        lambda leaf: np.full_like(leaf, 1 / np.prod(leaf.shape[-4:-1]) if leaf.ndim >= 4 else 0),
        resnet.initialise(config, seed=0),
    )
    axis, length = int(np.argmax(shape)), max(shape)
    size, stride = receptive_field(config, "conv4")
    cell = int(resnet.map_size(length, "conv4", config)) // 2
    centre = int(cell_offset(config, "conv4", np.array(shape))[axis]) + stride * cell
    reach = (size - 1) // 2
    pixels = [centre - reach - 1, centre - reach, centre, centre + reach, centre + reach + 1]
    assert 0 <= pixels[0]
    assert pixels[-1] < length
    images = np.zeros((len(pixels), *shape, 3), np.float32)
    images.swapaxes(1, 1 + axis)[np.arange(len(pixels)), pixels] = 1
    encode = jax.jit(functools.partial(resnet.forward, config=config))
    maps = encode(params, jnp.asarray(images), jnp.array([shape] * len(pixels)))
    seen = np.asarray(maps["conv4"]).squeeze(2 - axis)[:, cell].max(axis=-1) > 0
    assert seen.tolist() == [False, True, True, True, False]
