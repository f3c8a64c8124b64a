"""A COLMAP database of cameras, photos, keypoints, matches and verified two-view geometries.

COLMAP's origin is the corner of the top-left pixel, ours its centre: keypoints are shifted by half a pixel, and
fundamental matrices with them. Needs pycolmap, of the extra ``[sfm]``.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from delf_jax.errors import FileFormatError
from delf_jax.features import LocalFeatures
from delf_jax.files import atomic
from delf_jax.interchange.pairs import PairMatches

# COLMAP's focal length if nothing better is known, in longest sides of the photo.
_DEFAULT_FOCAL_LENGTH = 1.2


class Intrinsics(NamedTuple):
    """A camera as COLMAP describes it.

    Attributes:
        model: COLMAP's name of the model: SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, OPENCV, ...
        parameters: its numbers in COLMAP's order, in pixels of the upright photo with the origin at the corner.
    """

    model: str
    parameters: tuple[float, ...]


def parse_intrinsics(text: str) -> Intrinsics:
    """Reads ``MODEL,NUMBER,NUMBER,...``; FileFormatError if COLMAP has no such camera.

    >>> parse_intrinsics("SIMPLE_PINHOLE,1200,320,240")
    Intrinsics(model='SIMPLE_PINHOLE', parameters=(1200.0, 320.0, 240.0))
    """
    model, *numbers = text.split(",")
    try:
        intrinsics = Intrinsics(model, tuple(float(number) for number in numbers))
        _camera(intrinsics, (1, 1))
    except (ValueError, TypeError, RuntimeError):  # pycolmap raises the last one for an unknown model
        raise FileFormatError(
            f"camera {text!r}: give COLMAP's model and all of its numbers, such as PINHOLE,fx,fy,cx,cy"
        ) from None
    return intrinsics


def write_database(
    path: str | os.PathLike[str],
    photos: Iterable[tuple[str, LocalFeatures, str | None]],
    pairs: Iterable[PairMatches] = (),
    *,
    camera: Intrinsics | None = None,
) -> None:
    """Writes a database that appears whole or not at all, ready for COLMAP's mapper.

    Args:
        photos: (name below the root, features, path of the photo if its EXIF data may tell the focal length); one is in
            memory at a time.
        pairs: their matches; the verified ones become two-view geometries, which the mapper needs.
        camera: the one camera that took all photos. By default each photo gets a SIMPLE_RADIAL camera of its own, with
            the focal length of its EXIF data or COLMAP's default of 1.2 times the longest side.

    Raises:
        FileFormatError: pycolmap is not installed, photos of one camera differ in size, or a name comes twice.
    """
    pycolmap = import_pycolmap()
    with atomic.replacing(path) as aside:
        database = pycolmap.Database.open(aside)
        try:
            with pycolmap.DatabaseTransaction(database):
                numbers = _write_photos(database, photos, camera)
                for pair in pairs:
                    _write_pair(database, numbers, pair)
        finally:
            database.close()


def _write_photos(
    database: Any, photos: Iterable[tuple[str, LocalFeatures, str | None]], intrinsics: Intrinsics | None
) -> dict[str, int]:
    """The number of each photo in the database, by name."""
    pycolmap = import_pycolmap()
    numbers: dict[str, int] = {}
    shared: tuple[tuple[int, int], Any] | None = None
    for name, features, path in photos:
        if name in numbers:
            raise FileFormatError(f"{name}: comes twice; give every photo a name of its own")
        if intrinsics is None:
            camera = _new_camera(database, _guess(features.image_size, path))
        elif shared is None:
            camera = _new_camera(database, _camera(intrinsics, features.image_size))
            shared = features.image_size, camera
        else:
            size, camera = shared
            if size != features.image_size:
                raise FileFormatError(
                    f"{name}: is {features.image_size[1]} x {features.image_size[0]} pixels, the photos before it "
                    f"{size[1]} x {size[0]}; photos of one camera have one size"
                )
        number = database.write_image(pycolmap.Image(name=name, camera_id=camera.camera_id))
        frame = pycolmap.Frame()
        frame.rig_id = camera.camera_id
        frame.add_data_id(pycolmap.data_t(camera.sensor_id, number))
        database.write_frame(frame)
        database.write_keypoints(number, np.asarray(features.keypoints, np.float32) + np.float32(0.5))
        numbers[name] = number
    return numbers


def _write_pair(database: Any, numbers: dict[str, int], pair: PairMatches) -> None:
    pycolmap = import_pycolmap()
    a, b = numbers[pair.a], numbers[pair.b]
    rows = np.asarray(pair.rows, np.uint32)
    database.write_matches(a, b, rows)
    if pair.fundamental is None or not pair.verified.any():
        return
    shift = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED
    geometry.F = shift.T @ np.asarray(pair.fundamental, np.float64) @ shift
    geometry.inlier_matches = rows[pair.verified]
    database.write_two_view_geometry(a, b, geometry)


def _new_camera(database: Any, camera: Any) -> Any:
    """The camera with its number, on a rig of its own with the same number."""
    pycolmap = import_pycolmap()
    camera.camera_id = database.write_camera(camera)
    rig = pycolmap.Rig(rig_id=camera.camera_id)
    rig.add_ref_sensor(camera.sensor_id)
    database.write_rig(rig, use_rig_id=True)
    return camera


def _camera(intrinsics: Intrinsics, image_size: tuple[int, int]) -> Any:
    height, width = image_size
    camera = import_pycolmap().Camera(
        model=intrinsics.model, width=width, height=height, params=list(intrinsics.parameters)
    )
    if not camera.verify_params():
        raise ValueError("too many or too few numbers for the model")
    camera.has_prior_focal_length = True
    return camera


def _guess(image_size: tuple[int, int], path: str | None) -> Any:
    pycolmap = import_pycolmap()
    height, width = image_size
    camera = pycolmap.Camera.create_from_model_id(
        0, pycolmap.CameraModelId.SIMPLE_RADIAL, _DEFAULT_FOCAL_LENGTH * max(image_size), width, height
    )
    if path is not None and Path(path).is_file():
        # COLMAP's own reader of EXIF data; it does not turn photos upright, which changes no focal length.
        stored = pycolmap.infer_camera_from_image(path)
        if stored.has_prior_focal_length:
            camera.focal_length, camera.has_prior_focal_length = stored.mean_focal_length(), True
    return camera


def import_pycolmap() -> ModuleType:
    """pycolmap; FileFormatError if it is not installed."""
    try:
        import pycolmap
    except ImportError:
        raise FileFormatError("COLMAP's functions need pycolmap; install it with `pip install delf-jax[sfm]`") from None
    return pycolmap
