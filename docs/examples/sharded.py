"""The extractor sharded over eight devices with your own mesh; here the CPU simulates eight devices.

``shard_map`` gives every device its rows of the batch, and no device waits for another. The features are the same as on
one device.  python docs/examples/sharded.py [MODEL]
"""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"  # leave these two lines out on a machine with eight accelerators
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import delf_jax
from delf_cli.demo import PHOTOS
from delf_jax.photos.buckets import pad_batch
from delf_jax.photos.load import load_photo

FILES = sorted(PHOTOS.glob("*.jpg"))[:8]

extractor = delf_jax.load(sys.argv[1] if len(sys.argv) > 1 else "delf-r50", max_features=100, scales=(1.0,))
images, valid_hw = pad_batch([load_photo(path, max_side=192).pixels for path in FILES], (192, 192), batch_size=8)

mesh = Mesh(np.array(jax.devices()), ("photos",))
program = jax.jit(
    jax.shard_map(extractor.apply, mesh=mesh, in_specs=(P(), P("photos"), P("photos")), out_specs=P("photos"))
)
params = jax.device_put(extractor.params, NamedSharding(mesh, P()))  # a copy on every device
batch = jax.device_put((images, valid_hw), NamedSharding(mesh, P("photos")))
features = program(params, *batch)
print(f"{len(features.descriptors.sharding.device_set)} devices, descriptors {features.descriptors.shape}")

text = program.lower(params, *batch).compile().as_text()
print("collectives in the program:", sum(text.count(name) for name in ("all-gather", "all-reduce", "all-to-all")))

alone = jax.jit(extractor.apply)(jax.device_get(extractor.params), images[:1], valid_hw[:1])
difference = np.abs(np.asarray(alone.keypoints[0]) - np.asarray(features.keypoints[0])).max()
print(f"keypoints of one device differ by {difference:.4f} pixels at most")
