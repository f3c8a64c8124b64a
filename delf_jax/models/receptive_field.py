"""Receptive fields: which pixels a cell of a feature map sees, computed from the network's list of windows."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from delf_jax.models.architectures import Config, network_of


class ReceptiveField(NamedTuple):
    """Pixels that a cell sees (size) and pixels between neighbouring cells (stride), along each axis."""

    size: int
    stride: int


def receptive_field(config: Config, name: str) -> ReceptiveField:
    """Size and stride in pixels of the cells of the map ``name``.

    Each window adds (kernel - 1) times the distance between the cells it reads (Araujo et al., Distill 2019).

    >>> from delf_jax.models.resnet import ResNetConfig
    >>> receptive_field(ResNetConfig(layout="keras_v1", norm_epsilon=1e-3), "conv4")
    ReceptiveField(size=291, stride=16)
    """
    size, stride = 1, 1
    for layer in network_of(config).layers_to(config, name):
        size += (layer.kernel - 1) * stride
        stride *= layer.stride
    return ReceptiveField(size, stride)


def cell_offset(config: Config, name: str, valid_hw: Any) -> Any:
    """Centre (y, x) of cell (0, 0) of the map ``name``, in pixels of the photo given to the network.

    The centre of the top-left pixel is (0, 0); cell (i, j) lies at ``offset + stride * (i, j)``. The offset is zero if
    all windows have the same padding on both sides; with TensorFlow's SAME it depends on whether the size is odd.

    Args:
        valid_hw: integer [..., 2] (height, width) of the photo, NumPy or traced.

    Returns:
        float32 [..., 2], (y, x).
    """
    offset: Any = np.zeros(np.shape(valid_hw), np.float32)
    stride, size = 1, valid_hw
    for layer in network_of(config).layers_to(config, name):
        offset = offset + np.float32(stride) * (np.float32((layer.kernel - 1) / 2) - layer.low_padding(size))
        size = layer.output_size(size)
        stride *= layer.stride
    return offset.astype(np.float32)


def cell_centres(
    config: Config, name: str, valid_hw: Int[Array | np.ndarray, "b 2"], map_hw: tuple[int, int]
) -> Float[Array, "b h w 2"]:
    """(x, y) of the centres of all cells of a [h, w] map, in pixels of the photo given to the network.

    Args:
        config, name, valid_hw: as in ``cell_offset``.
        map_hw: (h, w) of the map, cells outside the photo included.
    """
    stride = receptive_field(config, name).stride
    offset = jnp.asarray(cell_offset(config, name, valid_hw), jnp.float32)
    offset = jnp.broadcast_to(offset, (valid_hw.shape[0], 2))
    height, width = map_hw
    rows, columns = jnp.arange(height) * stride, jnp.arange(width) * stride
    shape = (valid_hw.shape[0], height, width)
    y = jnp.broadcast_to((offset[:, :1] + rows)[:, :, None], shape)
    x = jnp.broadcast_to((offset[:, 1:] + columns)[:, None, :], shape)
    return jnp.stack([x, y], axis=-1)
