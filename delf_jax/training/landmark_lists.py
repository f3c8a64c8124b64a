"""Google Landmarks lists: which photo shows which landmark, by name or by place on the Earth.

Columns of v1 and v2 are ``id, url, landmark_id``, one row per photo; of v2-clean ``landmark_id, images``, one row per
landmark with its ids separated by spaces. With columns ``latitude`` and ``longitude`` (degrees) photos can be grouped
by place: for Google Landmarks, a photo within a distance of a landmark cluster's centre is a match, whatever its name.
"""

import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.csv
from jaxtyping import Float64, Int64

from delf_jax.errors import TrainingDataError, one_line, reason_of
from delf_jax.training.samples import LabelledPhotos, photo_list

EARTH_RADIUS = 6_371_008.8
"""Mean radius in metres."""

_ID = re.compile(r"[A-Za-z0-9_-]+")
# Rows of v2-clean hold thousands of ids, and a row has to fit in a block.
_BLOCK_BYTES = 1 << 24


def from_csv(
    path: str | os.PathLike[str], photos: str | os.PathLike[str], *, positives: str = "landmark"
) -> LabelledPhotos:
    """The listed photos that are on the disk; ``absent`` names the others.

    Args:
        path: the list, with a header.
        photos: folder of ``0/1/2/012....jpg`` (folders by the first three characters of the id) or of ``ID.jpg``.
        positives: ``landmark``: a class is a landmark_id. ``radius:METRES``: a class is a place, that is the centre of
            a landmark. Landmarks with a centre within the radius of a larger landmark's are the same place. A photo
            belongs to the nearest place within the radius, or is left out.

    Raises:
        TrainingDataError: the list cannot be read or lacks columns, or none of its photos is there.
    """
    radius = _radius(positives)
    table = _table(path)
    ids, landmarks = _pairs(path, table)
    classes = landmarks if radius is None else places(landmarks, _positions(path, table), radius=radius)
    root = os.path.abspath(photos)
    labelled, absent = [], []
    for landmark, name in dict.fromkeys(zip(classes, ids, strict=True)):
        if landmark is None:
            continue
        if not _ID.fullmatch(name):
            raise TrainingDataError(f"{path}: {name[:80]!r} is not an id of a photo; ids have letters and digits only")
        file = next(
            (file for file in (_in_tree(name), f"{name}.jpg") if os.path.isfile(os.path.join(root, file))), None
        )
        if file is None:
            absent.append(name)
        else:
            labelled.append((landmark, file))
    if not labelled:
        raise TrainingDataError(
            f"{path}: none of its {len(absent)} photos is in {root}; name the folder that holds 0/1/2/012....jpg, or "
            "ID.jpg"
        )
    return photo_list(labelled, root=root, absent=absent)


def places(landmarks: list[str], positions: Float64[np.ndarray, "n 2"], *, radius: float) -> list[str | None]:
    """The place of each photo, named after the landmark whose centre it is; None for a photo far from all of them.

    Args:
        landmarks: landmark of each photo; only the centres of the places come from them.
        positions: (latitude, longitude) in degrees; photos with NaN are at no place.
        radius: metres.
    """
    located = np.flatnonzero(np.isfinite(positions).all(axis=1))
    names, inverse, counts = np.unique([landmarks[photo] for photo in located], return_inverse=True, return_counts=True)
    centres = _centres(positions[located], inverse, len(names))
    founders: list[int] = []
    taken = np.zeros(len(names), bool)
    largest_first = np.argsort(-counts, kind="stable")
    by_latitude = np.argsort(centres[:, 0], kind="stable")
    for landmark in largest_first:
        if not taken[landmark]:
            founders.append(int(landmark))
            near, _ = _within(centres[landmark], centres, by_latitude, radius)
            taken[near] = True
    nearest = np.full(len(located), np.inf)
    found: list[str | None] = [None] * len(landmarks)
    by_latitude = np.argsort(positions[located, 0], kind="stable")
    for founder in founders:
        near, metres = _within(centres[founder], positions[located], by_latitude, radius)
        for i, distance in zip(near, metres):
            if distance < nearest[i]:
                nearest[i], found[located[i]] = distance, str(names[founder])
    return found


def haversine(a: Float64[np.ndarray, "n 2"], b: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, " n"]:
    """Metres along the Earth's surface between (latitude, longitude) in degrees.

    2 R asin(sqrt(sin^2((lat_b - lat_a) / 2) + cos(lat_a) cos(lat_b) sin^2((lon_b - lon_a) / 2)))
    """
    (lat_a, lon_a), (lat_b, lon_b) = np.radians(a).T, np.radians(b).T
    h = np.sin((lat_b - lat_a) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.clip(h, 0, 1)))


def _centres(positions: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Middle of each group on the sphere; averaged in space, so that the date line and the poles are no exception."""
    latitude, longitude = np.radians(positions).T
    points = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])
    x, y, z = (np.bincount(group, weights=axis, minlength=groups) for axis in points)
    return np.degrees(np.stack([np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x)], axis=1))


def _within(
    centre: np.ndarray, positions: np.ndarray, by_latitude: Int64[np.ndarray, " n"], radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions within the radius, and their distances; looks only at the possible band of latitudes."""
    # A little wider than the radius, because rounding must not cut what the distance itself lets in.
    band = np.degrees(radius / EARTH_RADIUS) * (1 + 1e-9) + 1e-9
    start, stop = np.searchsorted(positions[by_latitude, 0], [centre[0] - band, centre[0] + band])
    near = by_latitude[start:stop]
    metres = haversine(positions[near], np.broadcast_to(centre, (len(near), 2)))
    return near[metres <= radius], metres[metres <= radius]


def _radius(positives: str) -> float | None:
    if positives == "landmark":
        return None
    kind, _, metres = positives.partition(":")
    try:
        radius = float(metres)
    except ValueError:
        radius = 0.0
    if kind != "radius" or not 0 < radius < np.inf:
        raise TrainingDataError(f"{positives}: there is no such choice of positives; give landmark or radius:METRES")
    return radius


def _table(path: str | os.PathLike[str]) -> pa.Table:
    texts = {name: pa.string() for name in ("id", "landmark_id", "images")}
    numbers = {name: pa.float64() for name in ("latitude", "longitude")}
    try:
        with open(path, "rb") as file:
            table = pa.csv.read_csv(
                file,
                read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES),
                convert_options=pa.csv.ConvertOptions(column_types=texts | numbers, strings_can_be_null=False),
            )
        table = table.rename_columns(table.column_names)  # names that are not UTF-8 come out here
    except UnicodeDecodeError:
        raise TrainingDataError(f"{path}: is not in UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise TrainingDataError(f"{path}: cannot be read ({reason_of(error)}); check the path") from None
    except pa.ArrowInvalid as error:
        raise TrainingDataError(f"{path}: is not a list with a header line ({one_line(error)})") from None
    if len(set(table.column_names)) < table.num_columns:
        raise TrainingDataError(f"{path}: has two columns of one name; rename one")
    return table


def _pairs(path: str | os.PathLike[str], table: pa.Table) -> tuple[list[str], list[str]]:
    """Ids and the landmark of each."""
    columns = set(table.column_names)
    if {"landmark_id", "images"} <= columns:
        ids, landmarks = [], []
        for landmark, images in zip(table["landmark_id"].to_pylist(), table["images"].to_pylist(), strict=True):
            ids += images.split()
            landmarks += [landmark] * len(images.split())
        return ids, landmarks
    if {"id", "landmark_id"} <= columns:
        return table["id"].to_pylist(), table["landmark_id"].to_pylist()
    raise TrainingDataError(
        f"{path}: has columns {', '.join(table.column_names)}; needed are id and landmark_id, or landmark_id and images"
    )


def _positions(path: str | os.PathLike[str], table: pa.Table) -> np.ndarray:
    if not {"id", "latitude", "longitude"} <= set(table.column_names):
        raise TrainingDataError(f"{path}: radius needs one row a photo with columns latitude and longitude, in degrees")
    columns = [table[name].to_numpy() for name in ("latitude", "longitude")]
    return np.stack(columns, axis=1).astype(np.float64)


def _in_tree(name: str) -> str:
    return os.path.join(*name[:3], f"{name}.jpg")
