"""The extractor inside your own function under ``jit``: how many features of two photos match.

All values stay on the device from the pixels to the answer.  python docs/examples/inside_jit.py [MODEL]
"""

import sys

import jax

import delf_jax
from delf_cli.demo import PHOTOS
from delf_jax.photos.buckets import pad_batch
from delf_jax.photos.load import load_photo
from retrieval.verification.matching import mutual_nearest

extractor = delf_jax.load(sys.argv[1] if len(sys.argv) > 1 else "delf-r50", max_features=300, scales=(1.0,))


@jax.jit
def shared_features(params, images, valid_hw):
    """How many features of photo 0 and photo 1 are each other's nearest, and their mean distance."""
    features = extractor.apply(params, images, valid_hw)
    (a, b), (where_a, where_b) = features.descriptors, features.valid  # padding rows are marked
    matches = mutual_nearest(a, b, where_a=where_a, where_b=where_b, max_distance=0.9)
    return matches.where.sum(), matches.distance.mean(where=matches.where)


def compare(a, b):
    """Both numbers for two of the packaged photos."""
    photos = [load_photo(PHOTOS / name, max_side=320).pixels for name in (a, b)]
    images, valid_hw = pad_batch(photos, (320, 320), batch_size=2)  # one canvas, one compiled program
    count, distance = shared_features(extractor.params, images, valid_hw)
    return int(count), float(distance)


for pair in (("leuvenA.jpg", "leuvenB.jpg"), ("leuvenA.jpg", "chelsea.jpg")):
    count, distance = compare(*pair)
    print(f"{pair[0]} and {pair[1]}: {count} features are each other's nearest, mean distance {distance:.3f}")
print(f"{shared_features._cache_size()} program compiled")
