"""A Grain pipeline that feeds the extractor: photos are decoded by its threads while the device computes.

For those who have such a pipeline; ``extractor.stream`` does the same without one.
python docs/examples/grain_pipeline.py [MODEL]
"""

import sys

import grain
import jax

import delf_jax
from delf_cli.demo import PHOTOS
from delf_jax.photos.buckets import pad_batch
from delf_jax.photos.load import load_photo

FILES = sorted(PHOTOS.glob("*.jpg"))
BATCH, SIDE = 4, 192

extractor = delf_jax.load(sys.argv[1] if len(sys.argv) > 1 else "delf-r50", max_features=100, scales=(1.0,))
program = jax.jit(extractor.apply)

batches = (
    grain.MapDataset.source(FILES)
    .seed(0)
    .shuffle()
    .map(lambda path: (path.name, load_photo(path, max_side=SIDE).pixels))
    .to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2 * BATCH))
    .batch(BATCH, batch_fn=lambda rows: ([name for name, _ in rows], [pixels for _, pixels in rows]))
)

found = {}
for names, photos in batches:
    # The last batch may be short: its missing rows have size (0, 0) and no features.
    images, valid_hw = pad_batch(photos, (SIDE, SIDE), batch_size=BATCH)
    features = program(extractor.params, images, valid_hw)
    found |= dict(zip(names, features.valid.sum(axis=1).tolist()))

for name, count in sorted(found.items()):
    print(f"{name}: {count} features")
print(f"{len(found)} of {len(FILES)} photos, {program._cache_size()} program compiled")
