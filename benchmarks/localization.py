"""Time that localization adds to the encoder, and time of an explanation.

    python -m benchmarks.localization --json benchmarks/results/localization.json

Photos: ``cub10`` in the data folder if it is there, otherwise the packaged photos.

There are three parts. Fitting and localizing are compared with the encoder alone, photo by photo in turns. Places in
other photos are explained by the training points of 300 photos. The official computation in PyTorch runs on the same
feature maps, if PyTorch is installed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from tyro.conf import arg

import localization
from benchmarks import explanations, official_torch, results_file
from benchmarks.command_line import run
from benchmarks.datasets import data_folder
from benchmarks.errors import Unavailable
from benchmarks.timing import spread, take_turns
from delf_cli.demo import PHOTOS
from delf_jax.errors import DelfError
from delf_jax.photos.load import load_photo
from localization.encoders.base import DenseFeatures
from localization.evaluation import datasets
from localization.foreground.statistics import Statistics, position_sums
from localization.predictor import Predictor

Photos = Mapping[str, UInt8[np.ndarray, "h w 3"]]

_PLACES_A_PHOTO = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures the cost of fitting, localizing and explaining.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED). Without cub10 in it, warped copies of the
            packaged photos are used.
        json: also write the results to this file.
        model: model of the encoder.
        layer: layer of the encoder (default: the deepest).
        max_side: reduce photos to this longest side, in pixels.
        cost_photos: number of photos in the first part.
        batch: number of these photos that are computed at once.
        points_photos: number of photos whose points explain places.
        queries: number of places that are explained.
        rounds: how often everything is measured.
    """

    data: Path | None = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    model: str = "delf-r50"
    layer: str | None = None
    max_side: int = 448
    cost_photos: int = 24
    batch: int = 4
    points_photos: int = 300
    queries: int = 40
    rounds: int = 5


def main(options: Options) -> list[dict[str, Any]]:
    """Measures all three parts, prints the table, and returns its rows."""
    encoder = localization.backbone_encoder(options.model, layer=options.layer, max_side=options.max_side)
    extra = -(-options.queries // _PLACES_A_PHOTO)
    photos = load(options, options.points_photos + extra)
    names = list(photos)
    fitted = {name: photos[name] for name in names[: options.points_photos]}
    asked = {name: photos[name] for name in names[options.points_photos :]}
    predictor = localization.fit(fitted, encoder=encoder)
    rows = cost(encoder, predictor, dict(list(fitted.items())[: options.cost_photos]), options)
    maps = feature_maps(encoder, asked)
    rows += explanations.measure(predictor, places(maps, options.queries), rounds=options.rounds)
    try:
        sizes = [photo.shape[:2] for photo in asked.values()]
        rows += official_torch.compare(list(maps.values()), [(h, w) for h, w in sizes], rounds=options.rounds)
    except Unavailable as error:
        rows.append({"part": "official computation", "what": "PyTorch", "skipped": str(error)})
    print(table(rows))
    if options.json is not None:
        settings = {
            "encoder": {name: value for name, value in encoder.description.items() if name != "backbone"},
            "cost_photos": options.cost_photos,
            "batch": options.batch,
            "batch_size": encoder.extractor.batch_size,
            "queries": options.queries,
            "rounds": options.rounds,
        }
        results_file.write(options.json, "localization", rows, settings)
    return rows


def cost(
    encoder: localization.ExtractorEncoder, predictor: Predictor, photos: Photos, options: Options
) -> list[dict[str, Any]]:
    """Milliseconds per photo of the encoder alone, and with fitting or localizing. Photos are decoded before."""
    names = list(photos)
    batches = [{n: photos[n] for n in names[i : i + options.batch]} for i in range(0, len(names), options.batch)]
    ways: dict[str, Callable[[Photos], object]] = {
        "encoder alone": lambda batch: list(encoder.run(_smallest, {}, batch.items())),
        "fit: statistics": lambda batch: localization.fit(batch, encoder=encoder, max_points=0),
        "fit: statistics and points": lambda batch: localization.fit(batch, encoder=encoder),
        "localize": lambda batch: predictor.localize(batch.values()),
    }
    seconds = take_turns(ways, batches, rounds=options.rounds)
    photos_each = np.tile([len(batch) for batch in batches], options.rounds)
    rows = []
    for name in ways:
        milliseconds = spread(1000 * seconds[name] / photos_each)
        over = spread(100 * (seconds[name] / seconds["encoder alone"] - 1))
        rows.append(
            {
                "part": "cost",
                "what": name,
                "ms": milliseconds.median,
                "ms_quartiles": milliseconds[1:],
                "percent_over_encoder": over.median,
                "percent_over_encoder_quartiles": over[1:],
            }
        )
    return [*rows, host_part(encoder, photos, options)]


def host_part(encoder: localization.ExtractorEncoder, photos: Photos, options: Options) -> dict[str, Any]:
    """Milliseconds per photo that adding the sums on the host takes."""
    dense = next(iter(feature_maps(encoder, dict(list(photos.items())[:1])).values()))
    where = np.ones(dense.shape[:2], bool)
    sums = jax.device_get(position_sums(dense, where))
    before = Statistics.of_sums(sums, where)

    def many(_: int) -> None:
        for _ in range(100):
            before + Statistics.of_sums(sums, where)

    seconds = take_turns({"host": many}, range(10), rounds=options.rounds)["host"]
    milliseconds = spread(10 * seconds)
    return {
        "part": "cost",
        "what": "fit: statistics, their part on the host",
        "ms": milliseconds.median,
        "ms_quartiles": milliseconds[1:],
    }


def feature_maps(encoder: localization.ExtractorEncoder, photos: Photos) -> dict[str, np.ndarray]:
    """The feature map of each photo, float32 [h, w, C]."""
    maps = {}
    for name, _, row in encoder.run(_whole, {}, photos.items()):
        h, w = (int(cells) for cells in row["cells_hw"])
        maps[name] = np.array(row["features"][:h, :w], np.float32)
    return {name: maps[name] for name in photos}


def places(maps: Mapping[str, np.ndarray], count: int) -> list[np.ndarray]:
    """Unit features float32 [1, C] of ``count`` places: the longest features of each photo, where objects are."""
    found = []
    for dense in maps.values():
        rows = dense.reshape(-1, dense.shape[-1])
        norms = np.linalg.norm(rows, axis=1)
        for row in np.argsort(-norms)[:_PLACES_A_PHOTO]:
            found.append(rows[row : row + 1] / norms[row])
    return found[:count]


def load(options: Options, count: int) -> dict[str, np.ndarray]:
    """``count`` reduced photos: birds of cub10, training photos first, then warped copies of packaged photos."""
    photos: dict[str, np.ndarray] = {}
    try:
        listed = datasets.read(str(data_folder(options.data) / "cub10"))
    except (DelfError, FileNotFoundError):
        listed = []
    for photo in sorted(listed, key=lambda photo: not photo.train)[:count]:
        photos[str(photo.path)] = load_photo(photo.path, max_side=options.max_side).pixels
    packaged = [load_photo(path, max_side=options.max_side).pixels for path in sorted(PHOTOS.glob("*.jpg"))]
    generator = np.random.default_rng(0)
    while len(photos) < count:
        number = len(photos)
        photos[f"view {number}"] = view(packaged[number % len(packaged)], generator)
    return photos


def view(photo: UInt8[np.ndarray, "h w 3"], generator: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """The photo seen from another viewpoint: its corners are moved by up to a fifth of its sides."""
    height, width = photo.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + generator.uniform(-0.2, 0.2, (4, 2)).astype(np.float32) * (width, height)
    transform = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    return np.asarray(cv2.warpPerspective(photo, transform, (width, height), borderMode=cv2.BORDER_REFLECT))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text."""
    lines = []
    for row in rows:
        cells = [f"{row['part']:22}{row['what']:42}"]
        if "skipped" in row:
            cells.append(f"skipped: {row['skipped']}")
        else:
            cells.append(f"{row['ms']:9.3f} ms ({row['ms_quartiles'][0]:.3f} to {row['ms_quartiles'][1]:.3f})")
        for name, unit in (
            ("percent_over_encoder", "% over the encoder"),
            ("of_brute_force", "of brute force"),
            ("recall", "of the exact points found"),
            ("indexed_in_s", "s to index"),
            ("torch_ms", "ms in PyTorch"),
            ("w_cosine", "cosine of the two w*"),
            ("map_difference", "largest difference of the two maps"),
        ):
            if name in row:
                cells.append(f"{row[name]:.4g} {unit}")
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _smallest(arguments: Any, dense: DenseFeatures) -> Any:
    # One number a photo: what is not read would not be computed.
    return jnp.max(dense.features, axis=(1, 2, 3))


def _whole(arguments: Any, dense: DenseFeatures) -> Any:
    return {"features": dense.features, "cells_hw": dense.cells_hw}


if __name__ == "__main__":
    run(main, Options, __doc__)
