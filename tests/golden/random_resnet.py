"""Small random ResNets in the namings of their sources, and small random photos: the same on every machine."""

import numpy as np

TINY_WIDTH = 4
TINY_BLOCKS = (2, 2, 2, 2)
# Conv1 maps of odd and of even size, on either axis.
TINY_SIZES = ((65, 46), (52, 71))


def random_photo(height: int, width: int) -> np.ndarray:
    """float32 [height, width, 3] in -1 to 1, as if normalised."""
    return np.random.default_rng(height * 1000 + width).random((height, width, 3)).astype(np.float32) * 2 - 1


def keras_arrays(seed: int) -> dict[str, np.ndarray]:
    """Arrays of a tiny Keras ResNet v1, as its .h5 file names them."""
    draw = Draw(seed)
    arrays = draw.keras("conv1", "bn_conv1", 7, 3, TINY_WIDTH)
    for stage, units in enumerate(TINY_BLOCKS):
        inner, outer = TINY_WIDTH * 2**stage, 4 * TINY_WIDTH * 2**stage
        for unit in range(units):
            inputs = outer if unit else (TINY_WIDTH if stage == 0 else outer // 2)
            name = f"{stage + 2}{'ab'[unit]}_branch"
            arrays |= draw.keras(f"res{name}2a", f"bn{name}2a", 1, inputs, inner)
            arrays |= draw.keras(f"res{name}2b", f"bn{name}2b", 3, inner, inner)
            arrays |= draw.keras(f"res{name}2c", f"bn{name}2c", 1, inner, outer)
            if unit == 0:
                arrays |= draw.keras(f"res{name}1", f"bn{name}1", 1, inputs, outer)
    return arrays


def torchvision_arrays(seed: int) -> dict[str, np.ndarray]:
    """Arrays of a tiny bottleneck ResNet, as torchvision names them."""
    draw = Draw(seed)
    arrays = draw.torch("conv1", "bn1", 7, 3, TINY_WIDTH)
    for stage, units in enumerate(TINY_BLOCKS):
        inner, outer = TINY_WIDTH * 2**stage, 4 * TINY_WIDTH * 2**stage
        for unit in range(units):
            inputs = outer if unit else (TINY_WIDTH if stage == 0 else outer // 2)
            name = f"layer{stage + 1}.{unit}"
            arrays |= draw.torch(f"{name}.conv1", f"{name}.bn1", 1, inputs, inner)
            arrays |= draw.torch(f"{name}.conv2", f"{name}.bn2", 3, inner, inner)
            arrays |= draw.torch(f"{name}.conv3", f"{name}.bn3", 1, inner, outer)
            if unit == 0:
                arrays |= draw.torch(f"{name}.downsample.0", f"{name}.downsample.1", 1, inputs, outer)
    return arrays


class Draw:
    """Draws the arrays of a convolution and its batch norm, every one of them far from its neutral value."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed).random

    def _uniform(self, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
        return (low + (high - low) * self._random(shape)).astype(np.float32)

    def _kernel(self, size: int, inputs: int, outputs: int) -> np.ndarray:
        limit = (6 / (size * size * inputs)) ** 0.5
        return self._uniform((size, size, inputs, outputs), -limit, limit)

    def keras(self, conv: str, norm: str, size: int, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        return {
            f"{conv}/{conv}/kernel:0": self._kernel(size, inputs, outputs),
            f"{conv}/{conv}/bias:0": self._uniform((outputs,), -0.5, 0.5),
            f"{norm}/{norm}/gamma:0": self._uniform((outputs,), 0.5, 1.5),
            f"{norm}/{norm}/beta:0": self._uniform((outputs,), -0.5, 0.5),
            f"{norm}/{norm}/moving_mean:0": self._uniform((outputs,), -0.5, 0.5),
            f"{norm}/{norm}/moving_variance:0": self._uniform((outputs,), 0.5, 2.0),
        }

    def torch(self, conv: str, norm: str, size: int, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        return {
            f"{conv}.weight": np.ascontiguousarray(self._kernel(size, inputs, outputs).transpose(3, 2, 0, 1)),
            f"{norm}.weight": self._uniform((outputs,), 0.5, 1.5),
            f"{norm}.bias": self._uniform((outputs,), -0.5, 0.5),
            f"{norm}.running_mean": self._uniform((outputs,), -0.5, 0.5),
            f"{norm}.running_var": self._uniform((outputs,), 0.5, 2.0),
        }
