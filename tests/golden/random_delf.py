"""Checkpoints of the official DELF and DELG code with their real names and shapes, and random values.

The values are the same on every machine: each array is drawn from a generator seeded by its name.
"""

import zlib
from collections.abc import Iterator

import numpy as np

UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
REDUCED = 128
# Even and odd sides, also of what conv1 leaves.
SIZES = ((97, 130), (96, 75))

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def slim_arrays(
    depth: int = 50, *, attention: str = "attonly", autoencoder: str | None = None
) -> dict[str, np.ndarray]:
    """Variables of TF-slim's network up to block3: for depth 50 and no autoencoder those of delf_v1_20171026.

    Args:
        depth: 50 or 101.
        attention: scope of the attention.
        autoencoder: scope of the autoencoder's two convolutions, if there is one.
    """
    network = f"resnet_v1_{depth}"
    arrays = _slim_convolution(f"{network}/conv1", 7, 3, 64)
    for stage, unit, inputs, inner in _units(UNITS[depth][:3]):
        place = f"{network}/block{stage + 1}/unit_{unit + 1}/bottleneck_v1"
        arrays |= _slim_convolution(f"{place}/conv1", 1, inputs, inner)
        arrays |= _slim_convolution(f"{place}/conv2", 3, inner, inner)
        arrays |= _slim_convolution(f"{place}/conv3", 1, inner, 4 * inner)
        if unit == 0:
            arrays |= _slim_convolution(f"{place}/shortcut", 1, inputs, 4 * inner)
    compute = f"{attention}/attention/compute"
    arrays |= _slim_convolution(f"{compute}/conv1", 1, 1024, 512)
    arrays |= _draw({f"{compute}/conv2/weights": (1, 1, 512, 1), f"{compute}/conv2/biases": (1,)})
    if autoencoder:
        for number, (inputs, outputs) in enumerate(((1024, REDUCED), (REDUCED, 1024)), start=1):
            place = f"{autoencoder}/conv{number}"
            arrays |= _draw({f"{place}/weights": (1, 1, inputs, outputs), f"{place}/biases": (outputs,)})
    return arrays


def keras_arrays() -> dict[str, np.ndarray]:
    """Variables of the Keras DELG of the official training code, by the attributes that lead to them."""
    arrays = _keras_layer("backbone/conv1", "backbone/bn_conv1", 7, 3, 64)
    for stage, unit, inputs, inner in _units(UNITS[50]):
        place = f"backbone/l{stage + 2}{'abcdef'[unit]}"
        arrays |= _keras_layer(f"{place}/conv2a", f"{place}/bn2a", 1, inputs, inner)
        arrays |= _keras_layer(f"{place}/conv2b", f"{place}/bn2b", 3, inner, inner)
        arrays |= _keras_layer(f"{place}/conv2c", f"{place}/bn2c", 1, inner, 4 * inner)
        if unit == 0:
            arrays |= _keras_layer(f"{place}/conv_shortcut", f"{place}/bn_shortcut", 1, inputs, 4 * inner)
    arrays |= _keras_layer("attention/conv1", "attention/bn_conv1", 1, 1024, 512)
    arrays |= _keras_layer("attention/conv2", None, 1, 512, 1)
    arrays |= _keras_layer("autoencoder/conv1", None, 1, 1024, REDUCED)
    return arrays | _keras_layer("autoencoder/conv2", None, 1, REDUCED, 1024)


def _units(blocks: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """(stage, unit, input channels, inner channels), counted from 0."""
    inputs = 64
    for stage, units in enumerate(blocks):
        inner = 64 * 2**stage
        for unit in range(units):
            yield stage, unit, inputs, inner
            inputs = 4 * inner


def _slim_convolution(place: str, size: int, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    shapes = {f"{place}/weights": (size, size, inputs, outputs)}
    return _draw(shapes | {f"{place}/BatchNorm/{part}": (outputs,) for part in _NORM})


def _keras_layer(conv: str, norm: str | None, size: int, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {f"{conv}/kernel": (size, size, inputs, outputs), f"{conv}/bias": (outputs,)}
    return _draw(shapes | ({f"{norm}/{part}": (outputs,) for part in _NORM} if norm else {}))


def _draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Numbers that keep activations within a few powers of ten through all units."""
    arrays: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        random = np.random.default_rng(zlib.crc32(name.encode())).random(shape, np.float32)
        limit = np.float32((6 / np.prod(shape[:-1])) ** 0.5) if len(shape) > 1 else np.float32(0.5)
        low, high = {"gamma": (0.2, 0.6), "moving_variance": (0.5, 2)}.get(name.rpartition("/")[2], (-limit, limit))
        arrays[name] = np.float32(low) + np.float32(high - low) * random
    return arrays
