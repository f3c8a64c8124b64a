"""Structure from motion of a real scene with our matches, compared with COLMAP's SIFT on the same photos.

    python -m benchmarks.reconstruction --json benchmarks/results/reconstruction.json

Photos: ``sceaux`` in the data folder.

Eleven photos of a castle (sceaux, calibrated). Ours: features, matches and fundamental matrices of all pairs as
`delf-jax export --format colmap` writes them, then COLMAP's incremental mapper. Theirs: COLMAP's SIFT at full size and
the same mapper. Poses are compared after the similarity that aligns the camera centres best.
"""

import dataclasses
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float
from tyro.conf import arg

import delf_jax
import retrieval
from benchmarks import results_file
from benchmarks.command_line import run
from benchmarks.datasets import data_folder
from benchmarks.errors import PeerMissing
from delf_jax.errors import DelfError
from delf_jax.interchange import colmap
from delf_jax.interchange.pairs import all_pairs
from delf_jax.settings import ExtractionSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Reconstructs the scene twice and compares the poses.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        max_side: longest side of the photos for our features, in pixels.
        scales: image scales of our features.
        tolerance: factor of COLMAP's error limits, which are for keypoints of the full-size photo; our features are
            found in photos reduced from 1416 pixels.
        json: write the results, with the poses of both, to this file too.
    """

    data: Path | None = None
    max_side: int = 1024
    scales: tuple[float, ...] = (0.7071, 1.0, 1.4142, 2.0)
    tolerance: float = 1.38
    json: Annotated[Path | None, arg(metavar="FILE")] = None


class Poses(NamedTuple):
    """Cameras of a reconstruction.

    Attributes:
        names: of the n registered photos, sorted.
        rotations: float64 [n, 3, 3], from the world to each camera.
        centres: float64 [n, 3], in the reconstruction's own units.
    """

    names: list[str]
    rotations: Float[np.ndarray, "n 3 3"]
    centres: Float[np.ndarray, "n 3"]


class Agreement(NamedTuple):
    """How two reconstructions of the same photos differ.

    Attributes:
        cameras: number of photos in both.
        rotation: median and largest difference in degrees.
        centre: median and largest error in percent of the reference's path from photo to photo.
    """

    cameras: int
    rotation: tuple[float, float]
    centre: tuple[float, float]


def main(options: Options) -> list[dict[str, Any]]:
    """Reconstructs the scene twice, prints the results, and returns one row for each."""
    folder = data_folder(options.data) / "sceaux" / "images"
    with tempfile.TemporaryDirectory() as scratch:
        asked: dict[str, Any] = {"max_side": options.max_side, "scales": options.scales, "tolerance": options.tolerance}
        ours, row = reconstruct(folder, Path(scratch), **asked)
        theirs, reference = reconstruct_with_sift(folder, Path(scratch))
    found = agreement(ours, theirs)
    rows = [{"features": "delf-jax", **row, **found._asdict(), **_plain(ours)}]
    rows += [{"features": "SIFT (COLMAP)", **reference, **_plain(theirs)}]
    for each in rows:
        print(f"{each['features']}: {each['registered']} of {each['photos']} cameras, {each['points']} points, "
              f"reprojection error {each['reprojection_error']:.2f} pixels")  # fmt: skip
    print(f"rotations differ by {found.rotation[0]:.2f} degrees (median; largest {found.rotation[1]:.2f}), centres by "
          f"{found.centre[0]:.2f} % of the path (largest {found.centre[1]:.2f})")  # fmt: skip
    if options.json is not None:
        results_file.write(options.json, "reconstruction", rows, {**asked, "max_features": 4000})
    return rows


def reconstruct(
    photos: Path, scratch: Path, *, max_side: int, scales: tuple[float, ...], tolerance: float
) -> tuple[Poses, dict[str, Any]]:
    """Poses from our features and matches, with COLMAP's error limits times ``tolerance``, and a row of counts."""
    paths = _photos(photos)
    settings = ExtractionSettings(scorer="norm", max_features=4000, max_side=max_side, scales=scales)
    found = delf_jax.load(settings=settings)(paths)
    features = {path.name: photo for path, photo in zip(paths, found)}
    pairs = list(retrieval.match_pairs(features, all_pairs(features), max_side=max_side))
    database = scratch / "ours.db"
    rows = ((name, photo, None) for name, photo in features.items())
    colmap.write_database(database, rows, pairs, camera=intrinsics(photos))
    poses, counts = _map(database, photos, scratch / "ours", tolerance=tolerance)
    return poses, {
        "photos": len(paths),
        "keypoints": sum(map(len, found)),
        "pairs": len(pairs),
        "verified_pairs": sum(pair.fundamental is not None for pair in pairs),
        **counts,
    }


def reconstruct_with_sift(photos: Path, scratch: Path) -> tuple[Poses, dict[str, Any]]:
    """Poses from COLMAP's SIFT and matcher, and a row of counts."""
    pycolmap = _pycolmap()
    database, camera, paths = scratch / "sift.db", intrinsics(photos), _photos(photos)
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model, reader.camera_params = camera.model, ",".join(map(str, camera.parameters))
    pycolmap.extract_features(
        database,
        photos,
        [path.name for path in paths],
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=reader,
        device=pycolmap.Device.cpu,
    )
    pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
    poses, counts = _map(database, photos, scratch / "sift", tolerance=1.0)
    return poses, {"photos": len(paths), **counts}


def agreement(poses: Poses, reference: Poses) -> Agreement:
    """Compares the poses after the best similarity from the centres of ``poses`` to those of ``reference``.

    They must have at least three photos in common.
    """
    common = sorted(set(poses.names) & set(reference.names))
    ours, theirs = ([p.names.index(name) for name in common] for p in (poses, reference))
    source, target = poses.centres[ours], reference.centres[theirs]
    scale, turn, shift = similarity(source, target)
    errors = np.linalg.norm(scale * source @ turn.T + shift - target, axis=1)
    path = np.linalg.norm(np.diff(reference.centres, axis=0), axis=1).sum()
    # trace(R) = 1 + 2 cos(angle), R from the reference's camera to ours in the reference's world.
    between = np.einsum("nij,kj,nlk->nil", poses.rotations[ours], turn, reference.rotations[theirs])
    cosines = np.clip((np.trace(between, axis1=1, axis2=2) - 1) / 2, -1, 1)
    angles, shares = np.degrees(np.arccos(cosines)), 100 * errors / path
    spread = [(float(np.median(values)), float(values.max())) for values in (angles, shares)]
    return Agreement(len(common), spread[0], spread[1])


def similarity(
    source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]
) -> tuple[float, Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """(scale, rotation, shift) with target = scale * rotation source + shift in least squares (Umeyama, 1991)."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, sizes, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = float((sizes * signs).sum() / (a**2).sum())
    return scale, rotation, target.mean(axis=0) - scale * rotation @ source.mean(axis=0)


def intrinsics(photos: Path) -> colmap.Intrinsics:
    """The camera of ``K.txt`` beside the photos."""
    k = np.loadtxt(photos / "K.txt")
    return colmap.Intrinsics("PINHOLE", (float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])))


def _map(database: Path, photos: Path, out: Path, *, tolerance: float) -> tuple[Poses, dict[str, Any]]:
    """The largest model of COLMAP's incremental mapper, with known intrinsics and error limits times ``tolerance``."""
    pycolmap = _pycolmap()
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = 0
    options.num_threads = 1  # with more threads, the same seed gives other poses
    options.ba_refine_focal_length = options.ba_refine_extra_params = False
    for part, limits in (
        (options.mapper, ("init_max_error", "filter_max_reproj_error", "abs_pose_max_error")),
        (options.triangulation, ("merge_max_reproj_error", "complete_max_reproj_error", "create_max_angle_error",
                                 "continue_max_angle_error")),
    ):  # fmt: skip
        for limit in limits:
            setattr(part, limit, getattr(part, limit) * tolerance)
    out.mkdir()
    models = pycolmap.incremental_mapping(database, photos, out, options=options)
    if not models:
        raise DelfError(f"{photos}: no two photos could be reconstructed")
    best = max(models.values(), key=lambda model: model.num_reg_images())
    images = sorted((image for image in best.images.values() if image.has_pose), key=lambda image: image.name)
    poses = Poses(
        names=[image.name for image in images],
        rotations=np.stack([image.cam_from_world().rotation.matrix() for image in images]),
        centres=np.stack([image.projection_center() for image in images]),
    )
    return poses, {
        "registered": len(images),
        "points": best.num_points3D(),
        "reprojection_error": best.compute_mean_reprojection_error(),
    }


def _plain(poses: Poses) -> dict[str, Any]:
    return {
        "names": poses.names,
        "rotations": np.round(poses.rotations, 6).tolist(),
        "centres": np.round(poses.centres, 6).tolist(),
    }


def _photos(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.JPG"))


def _pycolmap() -> ModuleType:
    try:
        import pycolmap
    except ImportError:
        raise PeerMissing("needs pycolmap; install it with `pip install delf-jax[sfm]`") from None
    # Otherwise it writes a line for every photo to stderr.
    pycolmap.logging.minloglevel = pycolmap.logging.WARNING.value
    return pycolmap


if __name__ == "__main__":
    run(main, Options, __doc__)
