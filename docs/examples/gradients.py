"""Gradients through the dense features: which pixels make one place of a photo look like foreground?

``extractor.dense`` is differentiable with respect to the pixels and to its parameters.
python docs/examples/gradients.py [MODEL]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import delf_jax
from delf_cli.demo import PHOTOS
from delf_jax.photos.load import load_photo

PHOTO = PHOTOS / "chelsea.jpg"

extractor = delf_jax.load(sys.argv[1] if len(sys.argv) > 1 else "delf-r50")
pixels = load_photo(PHOTO, max_side=384).pixels
images, valid_hw = jnp.asarray(pixels[None], jnp.float32), jnp.array([pixels.shape[:2]])


def foreground(params, images):
    """cos(f, w*) of every cell of conv4 [h, w], f the feature and w* the foreground vector of the head."""
    features = extractor.dense(params, images, valid_hw, last="conv4")["conv4"][0]
    unit = features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-6)
    return unit @ params["head"]["foreground"]


cosines = jax.jit(foreground)(extractor.params, images)
row, column = np.unravel_index(np.argmax(cosines), cosines.shape)
gradient = jax.jit(jax.grad(lambda images: foreground(extractor.params, images)[row, column]))(images)
influence = np.abs(np.asarray(gradient[0])).sum(axis=-1)

x, y = np.asarray(extractor.cell_centres(valid_hw, "conv4", *cosines.shape))[0, row, column]
rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
near = influence[(abs(rows - y) <= 48) & (abs(columns - x) <= 48)].sum() / influence.sum()
print(f"cell ({row}, {column}) at pixel ({x:.0f}, {y:.0f}) has cosine {cosines[row, column]:.3f} with w*")
print(f"{near:.0%} of its gradient falls on the 97 x 97 pixels around it, {(influence > 0).mean():.0%} of pixels count")

weights = jax.jit(jax.grad(lambda params: foreground(params, images).mean()))(extractor.params)
print(f"and {len(jax.tree.leaves(weights['backbone']))} arrays of weights have a gradient too")
