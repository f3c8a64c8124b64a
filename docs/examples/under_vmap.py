"""The extractor under ``vmap``: one photo at several exposures, in one program with one more axis.

How many of the features stay where they are?  python docs/examples/under_vmap.py [MODEL]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import delf_jax
from delf_cli.demo import PHOTOS
from delf_jax.photos.load import load_photo

PHOTO = PHOTOS / "graf1.jpg"
EXPOSURES = jnp.array([0.6, 0.8, 1.0, 1.2])

extractor = delf_jax.load(sys.argv[1] if len(sys.argv) > 1 else "delf-r50", max_features=100, scales=(1.0,))
pixels = load_photo(PHOTO, max_side=256).pixels
valid_hw = jnp.array([pixels.shape[:2]])


def at_exposure(exposure):
    """Features of the photo, made lighter or darker."""
    image = jnp.clip(jnp.asarray(pixels, jnp.float32) * exposure, 0, 255)
    return extractor.apply(extractor.params, image[None], valid_hw)


features = jax.jit(jax.vmap(at_exposure))(EXPOSURES)  # LocalFeatures with leading axes [exposure, photo, feature]
print("descriptors", features.descriptors.shape)

reference = int(np.argmax(EXPOSURES == 1.0))
for row, exposure in enumerate(EXPOSURES.tolist()):
    here, there = (features.keypoints[i, 0][features.valid[i, 0]] for i in (row, reference))
    nearest = jnp.linalg.norm(here[:, None] - there, axis=-1).min(axis=1)
    print(f"exposure {exposure:.1f}: {float((nearest < 4).mean()):.0%} of {len(here)} features within 4 pixels")
