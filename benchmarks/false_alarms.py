"""Counts false alarms among random matches in domains of many shapes, and compares them with what log10_nfa says.

    python -m benchmarks.false_alarms --json benchmarks/results/false_alarms.json

``log10_nfa`` at or below t should come by chance in at most a share 10^t of pairs. Each pair has two domains: whole
photos, crops, letterbox bars, frames, discs, strips, islands, and what is left of photos under a clear sky. Features
lie in them at random, and their descriptors pair them at random. Pairs go through the whole verification of a search.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import Bool, Float
from scipy.stats import binom

from benchmarks import results_file
from delf_cli.environment import start_jax
from delf_jax.errors import DelfError
from delf_jax.features import Domain, LocalFeatures
from retrieval.verification.transforms import Model
from retrieval.verification.verify import VerificationSettings, verify_candidates

MODELS: tuple[Model, ...] = ("similarity", "affine", "homography", "fundamental")
LEVELS = (-1.0, -2.0, -3.0)
# So many false alarms at most, if the claim holds, in all but one of 10 000 counts.
SURE = 1 - 1e-4
# Candidates of one query, the largest group that is verified at once.
CANDIDATES = 100
# Cells of a reduced photo of 1024 x 768 pixels, and their side.
ROWS, COLUMNS, CELL = 48, 64, 16
MOST_MATCHES = 200

Mask = Bool[np.ndarray, "h w"]
Places = tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Counts false alarms.

    Attributes:
        pairs: of each model; a multiple of 100.
        models: kinds of transforms.
        json: file for the results.
    """

    pairs: int = 100_000
    models: tuple[Model, ...] = MODELS
    json: Path | None = None


def main(options: Options) -> list[dict[str, Any]]:
    """Prints one row for each model and level, and writes them with --json. Returns the rows."""
    rows = []
    for model in options.models:
        start = time.process_time()
        values = np.concatenate([random_values(model, seed) for seed in range(options.pairs // CANDIDATES)])
        seconds = time.process_time() - start
        for row in counted(values):
            rows.append({"model": model, **row, "processor_seconds": round(seconds)})
            print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    if options.json is not None:
        results_file.write(options.json, "false_alarms", rows, {"pairs": options.pairs, "sure": SURE})
    return rows


def counted(values: Float[np.ndarray, " n"]) -> list[dict[str, Any]]:
    """For each level: values at or below it, how many there may be, and the least of all values."""
    return [
        {
            "level": level,
            "pairs": len(values),
            "expected": round(len(values) * 10**level),
            "allowed": int(binom.ppf(SURE, len(values), 10**level)),
            "found": int((values <= level).sum()),
            "least": round(float(values.min()), 2),
        }
        for level in LEVELS
    ]


def random_values(model: Model, seed: int) -> Float[np.ndarray, " c"]:
    """``log10_nfa`` of a query with ``CANDIDATES`` photos, each as if it were verified alone."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(8, MOST_MATCHES))
    query = random_features(rng, count)
    photos = [random_features(rng, count) for _ in range(CANDIDATES)]
    settings = VerificationSettings(model=model, seed=seed, photos_verified=1)
    found = verify_candidates(query, [("", 0.0, photo) for photo in photos], settings)
    return np.array([match.log10_nfa for match in found])


def random_features(rng: np.random.Generator, count: int) -> LocalFeatures:
    """Features at random in a random domain. Those of two photos pair at random, as their descriptors are shuffled."""
    shape = SHAPES[sorted(SHAPES)[rng.integers(len(SHAPES))]]
    mask = shape(rng)
    pixel = float(rng.uniform(1, 4))
    places = np.argwhere(mask)[rng.integers(mask.sum(), size=count)][:, ::-1]
    side = CELL * pixel
    (y0, x0), (y1, x1) = np.argwhere(mask).min(axis=0) * side, (np.argwhere(mask).max(axis=0) + 1) * side
    return LocalFeatures(
        keypoints=((places + rng.uniform(size=(count, 2))) * side - 0.5).astype(np.float32),
        scales=(2.0 ** rng.uniform(-1, 1, count) / pixel).astype(np.float32),
        scores=np.ones(count, np.float32),
        descriptors=np.eye(MOST_MATCHES, dtype=np.float32)[rng.permutation(count)],
        image_size=(round(ROWS * side), round(COLUMNS * side)),
        domain=Domain(x0, y0, x1, y1, mask.sum() * side**2, pixel),
    )


def _mask(inside: Callable[[np.random.Generator, Places], Mask]) -> Callable[[np.random.Generator], Mask]:
    """Draws masks until one has at least 25 cells, a fifth of the side of a photo each way."""

    def draw(rng: np.random.Generator) -> Mask:
        y, x = np.mgrid[:ROWS, :COLUMNS] + 0.5
        while True:
            mask = np.broadcast_to(inside(rng, (y / ROWS, x / COLUMNS)), y.shape)
            if mask.sum() >= 25:
                return mask

    return draw


def _box(rng: np.random.Generator, places: Places) -> Mask:
    (top, bottom), (left, right) = np.sort(rng.uniform(size=(2, 2)))
    y, x = places
    return np.asarray((top < y) & (y < bottom) & (left < x) & (x < right))


def _disc(rng: np.random.Generator, places: Places, least: float = 0.15) -> Mask:
    y, x = places
    centre, radius = rng.uniform(0.2, 0.8, 2), rng.uniform(least, 0.5)
    return np.asarray(np.hypot(y - centre[0], x - centre[1]) < radius)


SHAPES: Mapping[str, Callable[[np.random.Generator], Mask]] = {
    "whole": _mask(lambda rng, at: np.ones_like(at[0], bool)),
    "crop": _mask(_box),
    "letterbox": _mask(lambda rng, at: abs(at[0] - 0.5) < rng.uniform(0.1, 0.4)),
    "pillarbox": _mask(lambda rng, at: abs(at[1] - 0.5) < rng.uniform(0.1, 0.4)),
    "frame": _mask(lambda rng, at: np.maximum(abs(at[0] - 0.5), abs(at[1] - 0.5)) > rng.uniform(0.3, 0.47)),
    "disc": _mask(_disc),
    "without a disc": _mask(lambda rng, at: ~_disc(rng, at)),
    "below a slope": _mask(lambda rng, at: at[0] > rng.uniform(0.3, 0.8) + rng.uniform(-0.3, 0.3) * at[1]),
    "strip": _mask(lambda rng, at: abs(at[0] - rng.uniform(0.1, 0.9)) < rng.uniform(0.01, 0.05)),
    "diagonal": _mask(lambda rng, at: abs(at[0] - at[1]) < rng.uniform(0.02, 0.1)),
    "islands": _mask(lambda rng, at: _disc(rng, at, 0.03) & _box(rng, at) | _box(rng, at) & _box(rng, at)),
}


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for every count that is larger than chance allows."""
    return [
        f"{row['model']}: {row['found']} of {row['pairs']} at or below {row['level']:.0f}, at most {row['allowed']}"
        for row in rows
        if row["found"] > row["allowed"]
    ]


if __name__ == "__main__":
    try:
        start_jax()
        failed = summary(main(tyro.cli(Options, description=__doc__)))
    except DelfError as error:
        sys.exit(str(error))
    sys.exit("\n".join(failed) or 0)
