"""The levels of a pyramid on one canvas: packed without overlap, and each computed as if it were alone."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delf_jax.extraction import atlas
from delf_jax.extraction.atlas import pack
from delf_jax.extraction.pyramid import canvas_size
from delf_jax.models import resnet, vgg, vit
from delf_jax.models.architectures import Config, network_of
from delf_jax.models.layers import valid_cells
from delf_jax.models.receptive_field import receptive_field
from delf_jax.models.regions import Regions
from delf_jax.models.resnet import ResNetConfig
from delf_jax.models.vgg import VggConfig
from delf_jax.models.vit import VitConfig

SEVEN = (0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0)


@pytest.mark.parametrize("scales", [SEVEN, SEVEN[2:], (1.0,), (8.0, 0.1)])
@pytest.mark.parametrize("canvas", [(480, 640), (1024, 768), (192, 256), (64, 48)])
@pytest.mark.parametrize("stride", [16, 32, 14])
def test_levels_lie_apart_on_multiples_of_the_stride(
    canvas: tuple[int, int], scales: tuple[float, ...], stride: int
) -> None:
    sizes = tuple(canvas_size(canvas, scale) for scale in scales)
    layout = pack(sizes, stride)
    assert tuple((slot.height, slot.width) for slot in layout.slots) == sizes
    for slot in layout.slots:
        assert slot.top % stride == slot.left % stride == 0
        assert slot.top + slot.height <= layout.height
        assert slot.left + slot.width <= layout.width
    for a, b in itertools.combinations(layout.slots, 2):
        # A whole cell of the coarsest map lies between the last cell of one level and the first cell of another.
        below, right = -(-a.height // stride) + 1, -(-a.width // stride) + 1
        above, left = -(-b.height // stride) + 1, -(-b.width // stride) + 1
        assert (
            b.top >= a.top + below * stride
            or b.left >= a.left + right * stride
            or a.top >= b.top + above * stride
            or a.left >= b.left + left * stride
        )


def test_little_of_the_canvas_is_left_empty() -> None:
    for canvas in ((480, 640), (768, 1024), (1024, 1024), (1024, 768)):
        sizes = tuple(canvas_size(canvas, scale) for scale in SEVEN)
        layout = pack(sizes, 16)
        assert sum(height * width for height, width in sizes) > 0.88 * layout.height * layout.width


def test_photos_are_laid_out_alike_by_taps_and_by_products() -> None:
    sizes = jnp.array([(31, 47), (40, 48), (0, 0)])
    photos = jnp.asarray(np.random.default_rng(0).standard_normal((3, 40, 48, 3)), jnp.float32)
    photos = jnp.where(valid_cells(sizes, 40, 48)[..., None], photos, 0)
    scales = (0.7071, 1.0, 1.4142)
    layout = pack(tuple(canvas_size((40, 48), scale) for scale in scales), 15)
    laid = (
        jax.jit(functools.partial(pixels, scales=scales, atlas=layout, dtype=jnp.float32))(photos, sizes)
        for pixels in (atlas._pixels_by_taps, atlas._pixels_by_matrices)
    )
    by_taps, by_matrices = map(np.asarray, laid)
    np.testing.assert_allclose(by_matrices, by_taps, atol=1e-5)
    top, left = layout.slots[1][:2]
    np.testing.assert_array_equal(by_taps[:, top : top + 40, left : left + 48], photos)
    assert not by_taps[2].any()


@pytest.mark.parametrize(
    ("config", "name"),
    [
        *((ResNetConfig(layout, None, (1, 2, 1, 1), 4), "conv5") for layout in ("keras_v1", "keras_delf")),
        *((ResNetConfig(layout, None, (1, 2, 1, 1), 4), "conv5") for layout in ("torchvision", "tf_slim")),
        (ResNetConfig("tf_slim", None, (2, 2, 2, 1), 4, conv4_pitch=16), "conv5"),
        (VggConfig(None, (1, 1, 1, 1, 1), 4), "pool5"),
        (VitConfig(patch=14, grid=3, depth=1, width=8, heads=2), "relu"),
    ],
    ids=["keras_v1", "keras_delf", "torchvision", "tf_slim", "tf_slim-16", "vgg", "vit"],
)
def test_a_photo_on_the_atlas_gives_what_it_gives_alone(config: Config, name: str) -> None:
    network = network_of(config)
    assert network in (resnet, vgg, vit)
    params = network.initialise(config, seed=0)
    generator = np.random.default_rng(0)
    sizes = np.array([[(70, 66), (45, 33)], [(64, 71), (46, 34)]])
    stride = receptive_field(config, name).stride
    layout = pack(((70, 71), (46, 34)), stride)
    canvas = np.zeros((2, layout.height, layout.width, 3), np.float32)
    photos = [[generator.standard_normal((*size, 3)).astype(np.float32) for size in row] for row in sizes]
    for row, levels in enumerate(photos):
        for photo, slot in zip(levels, layout.slots, strict=True):
            canvas[row, slot.top : slot.top + photo.shape[0], slot.left : slot.left + photo.shape[1]] = photo
    forward = functools.partial(network.forward, params, config=config, last=name)
    together = jax.jit(lambda images, sizes: forward(images, Regions(sizes, layout.slots)))
    found = np.asarray(together(jnp.asarray(canvas), jnp.asarray(sizes))[name])
    filled = np.zeros(found.shape[:3], bool)
    for row, levels in enumerate(photos):
        for photo, slot in zip(levels, layout.slots, strict=True):
            alone = forward(jnp.asarray(photo[None]), jnp.array([photo.shape[:2]]))[name][0]
            top, left = slot.top // stride, slot.left // stride
            height, width = network.map_size(np.array(photo.shape[:2]), name, config)
            part = (row, slice(top, top + height), slice(left, left + width))
            np.testing.assert_allclose(found[part], alone[:height, :width], rtol=1e-4, atol=1e-5)
            filled[part] = True
    assert not found[~filled].any()
