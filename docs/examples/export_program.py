"""``jax.export`` of the extractor: weights and program in one file, which runs where delf-jax is not installed.

    python docs/examples/export_program.py save extractor.bin [MODEL]
    python docs/examples/export_program.py run extractor.bin photo.jpg

The second command imports only JAX, Pillow and flatbuffers (the file format of JAX). The program in the file takes
batches of one photo on a 256 x 256 canvas.
"""

import sys

import jax
import numpy as np

SIDE = 256


def save(path, model="delf-r50"):
    """Writes the program for this machine's kind of device, weights included."""
    import delf_jax

    extractor = delf_jax.load(model, max_features=200, scales=(0.7071, 1.0), max_side=SIDE)

    @jax.jit
    def program(images, valid_hw):
        features = extractor.apply(extractor.params, images, valid_hw)
        names = ("keypoints", "scales", "scores", "descriptors", "valid")
        return {name: getattr(features, name) for name in names}  # the file needs no class of delf-jax

    shapes = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.uint8), jax.ShapeDtypeStruct((1, 2), np.int32)
    exported = jax.export.export(program)(*shapes)
    with open(path, "wb") as file:
        file.write(exported.serialize())
    print(f"{path}: {len(exported.mlir_module_serialized) / 1e6:.1f} MB for {', '.join(exported.platforms)}")


def run(path, photo):
    """Features of a photo by the program in the file."""
    from PIL import Image

    with open(path, "rb") as file:
        program = jax.export.deserialize(bytearray(file.read()))
    with Image.open(photo) as image:
        image.thumbnail((SIDE, SIDE))
        pixels = np.asarray(image.convert("RGB"))
    canvas = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    canvas[0, : pixels.shape[0], : pixels.shape[1]] = pixels
    features = program.call(canvas, np.array([pixels.shape[:2]], np.int32))
    valid = np.asarray(features["valid"][0])
    print(f"{valid.sum()} features of {features['descriptors'].shape[-1]} dimensions")
    best = np.asarray(features["keypoints"])[0, 0]
    print(f"the strongest at ({best[0]:.1f}, {best[1]:.1f}); delf_jax imported: {'delf_jax' in sys.modules}")


if __name__ == "__main__":
    {"save": save, "run": run}[sys.argv[1]](*sys.argv[2:])
