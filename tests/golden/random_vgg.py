"""Small random VGGs in torchvision's naming: the same on every machine."""

import numpy as np

from tests.golden.random_resnet import Draw

TINY_WIDTH = 4
TINY_BLOCKS = (2, 2, 3, 3, 3)
# Sizes that leave an odd row or column at different pools.
TINY_SIZES = ((65, 46), (56, 71))


def vgg_arrays(seed: int, *, batch_norm: bool) -> dict[str, np.ndarray]:
    """Arrays of a tiny VGG16, as torchvision names them."""
    draw = Draw(seed)
    arrays: dict[str, np.ndarray] = {}
    index, inputs = 0, 3
    for stage, units in enumerate(TINY_BLOCKS):
        outputs = TINY_WIDTH * min(8, 2**stage)
        for _ in range(units):
            block = draw.torch(f"features.{index}", f"features.{index + 1}", 3, inputs, outputs)
            block[f"features.{index}.bias"] = block[f"features.{index + 1}.bias"][::-1].copy()
            arrays |= {name: array for name, array in block.items() if batch_norm or f".{index}." in name}
            index += 3 if batch_norm else 2
            inputs = outputs
        index += 1
    return arrays | {"classifier.0.weight": np.ones((2, 2), np.float32)}
