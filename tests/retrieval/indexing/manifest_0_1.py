"""Manifests of an index as delf-jax 0.1 wrote them."""

import hashlib
import json
from pathlib import Path

from retrieval.indexing import manifest


def write_as_0_1(folder: Path) -> None:
    """Rewrites the manifest in the form of 0.1: all entries beside the format, under one checksum."""
    file = json.loads((folder / manifest.NAME).read_text())
    described = {"format": file["format"], "version": 1, **file["body"]}
    described["sha256"] = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    (folder / manifest.NAME).write_text(json.dumps(described, indent=1))
