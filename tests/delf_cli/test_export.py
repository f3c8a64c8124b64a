"""`delf-jax export`: the files of other programs hold what the store holds, under their names and in their frames."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delf_cli.main import main
from delf_jax.interchange import hloc
from delf_jax.interchange.arrays import read_npz
from delf_jax.interchange.delf_files import read_delf
from delf_jax.store.reader import FeatureStore
from tests.delf_cli.conftest import PHOTOS, Run


def test_one_file_a_photo(run: Run, store: Path, tmp_path: Path) -> None:
    for kind, suffix in (("delf", ".delf"), ("numpy", ".npz")):
        outcome = run("export", store, "--format", kind, "--out", tmp_path / kind, "--json")
        assert outcome.code == 0, outcome.err
        assert outcome.records[0]["photos"] == len(PHOTOS)
        assert sorted(p.name for p in (tmp_path / kind).iterdir()) == sorted(f"{name}{suffix}" for name in PHOTOS)
    for photo in FeatureStore.open(store):
        stem = Path(photo.path).stem
        size = photo.features.image_size
        back = (
            read_npz(tmp_path / "numpy" / f"{stem}.npz"),
            read_delf(tmp_path / "delf" / f"{stem}.delf", image_size=size),
        )
        for features in back:
            assert features.image_size == size
            for column in ("keypoints", "scales", "scores", "descriptors"):
                np.testing.assert_allclose(getattr(features, column), getattr(photo.features, column), rtol=1e-6)


def test_photos_that_differ_only_in_the_ending_get_files_of_their_own(
    run: Run, small: tuple[str, ...], demo_photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "a.jpeg"):
        (folder / name).write_bytes((demo_photos / "box.jpg").read_bytes())
    assert run("extract", folder, "--out", tmp_path / "store", *small).code == 0
    assert run("export", tmp_path / "store", "--format", "delf", "--out", tmp_path / "out").code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpeg.delf", "a.jpg.delf"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path, tiny_model: Path) -> Path:
    """A store of a photo and of its part that begins 64 pixels further right and 32 further down."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "photos" / "part").mkdir(parents=True)
    with Image.open(demo_photos / "graf1.jpg") as photo:
        whole = photo.resize((400, 320))
    whole.save(folder / "photos" / "whole.png")
    whole.crop((64, 32, 400, 320)).save(folder / "photos" / "part" / "corner.png")
    options = ("--model", str(tiny_model), "--max-features", "300", "--scales", "1", "2")
    assert main(["extract", str(folder / "photos"), "--out", str(folder / "store"), *options]) == 0
    return folder / "store"


def test_hloc_finds_features_and_matches(run: Run, pair: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    outcome = run("export", pair, "--format", "hloc", "--pairs", "all", "--out", tmp_path, "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.records[0]["pairs"], outcome.records[0]["verified_pairs"]) == (1, 1)
    ours = {Path(photo.path).stem: photo.features for photo in FeatureStore.open(pair)}
    corner, whole = ours["corner"], ours["whole"]
    with h5py.File(tmp_path / "features.h5") as features, h5py.File(tmp_path / "matches.h5") as matches:
        group = features["part/corner.png"]
        assert group["keypoints"].attrs["uncertainty"] == hloc.UNCERTAINTY  # not reduced
        np.testing.assert_array_equal(group["keypoints"], corner.keypoints)
        np.testing.assert_allclose(group["descriptors"], corner.descriptors.T, atol=1e-3)
        assert tuple(group["image_size"]) == corner.image_size[::-1]
        partners = np.asarray(matches["part-corner.png"]["whole.png"]["matches0"])
        scores = np.asarray(matches["part-corner.png"]["whole.png"]["matching_scores0"])
    # Mutual nearest neighbours, worked out anew in NumPy.
    cosine = corner.descriptors @ whole.descriptors.T
    best, back = cosine.argmax(axis=1), cosine.argmax(axis=0)
    expected = np.where(back[best] == np.arange(len(corner)), best, -1)
    assert (partners != expected).mean() < 0.05  # descriptors are kept in 16 bits: near ties may fall either way
    found = partners >= 0
    np.testing.assert_allclose(scores[found], (1 + cosine[found, partners[found]]) / 2, atol=2e-3)
    rows, again = hloc.read_matches(tmp_path / "matches.h5", "whole.png", "part/corner.png")
    np.testing.assert_array_equal(rows, np.c_[partners[found], np.flatnonzero(found)])
    np.testing.assert_array_equal(again, scores[found].astype(np.float32))
    assert (tmp_path / "pairs.txt").read_text() == "part/corner.png whole.png\n"
    read = hloc.read_features(tmp_path / "features.h5")
    assert sorted(read) == ["part/corner.png", "whole.png"]
    np.testing.assert_allclose(read["whole.png"].descriptors, whole.descriptors, atol=1e-3)
    assert read["whole.png"].image_size == whole.image_size


def test_colmap_finds_keypoints_half_a_pixel_off_and_geometry_in_its_frame(
    run: Run, pair: Path, tmp_path: Path
) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    (tmp_path / "pairs.txt").write_text("# one wall\nwhole.png part/corner.png\npart/corner.png whole.png\n")
    out = tmp_path / "new" / "database.db"
    outcome = run("export", pair, "--format", "colmap", "--pairs", tmp_path / "pairs.txt", "--out", out)
    assert outcome.code == 0, outcome.err
    ours = {Path(photo.path).stem: photo.features for photo in FeatureStore.open(pair)}
    with pycolmap.Database.open(out) as database:
        assert database.num_matched_image_pairs() == database.num_verified_image_pairs() == 1
        whole, corner = (database.read_image_with_name(name) for name in ("whole.png", "part/corner.png"))
        for image, features in ((whole, ours["whole"]), (corner, ours["corner"])):
            camera = database.read_camera(image.camera_id)
            assert (camera.height, camera.width) == features.image_size
            assert camera.mean_focal_length() == 1.2 * max(features.image_size)
            stored = database.read_keypoints(image.image_id)
            np.testing.assert_allclose(stored[:, :2], features.keypoints + 0.5, rtol=1e-6)
        geometry = database.read_two_view_geometry(whole.image_id, corner.image_id)
        matches = database.read_matches(whole.image_id, corner.image_id)
    assert 20 <= len(geometry.inlier_matches) <= len(matches)
    first = ours["whole"].keypoints[geometry.inlier_matches[:, 0]] + 0.5
    second = ours["corner"].keypoints[geometry.inlier_matches[:, 1]] + 0.5
    np.testing.assert_allclose(np.median(first - second, axis=0), [64, 32], atol=4)
    first, second = (np.c_[points, np.ones(len(points))] for points in (first, second))
    lines = first @ np.asarray(geometry.F).T, second @ np.asarray(geometry.F)
    off = [np.abs(np.sum(lines[0] * second, axis=1)) / np.linalg.norm(line[:, :2], axis=1) for line in lines]
    # --max-error in one of the photos, which were not reduced.
    assert min(off[0].max(), off[1].max()) < 8.1


def test_an_index_chooses_the_pairs(run: Run, store: Path, index: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    outcome = run("export", store, "--format", "hloc", "--index", index, "--top", "1", "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    pairs = [set(line.split()) for line in (tmp_path / "pairs.txt").read_text().splitlines()]
    assert {"graf1.jpg", "graf3.jpg"} in pairs
    assert len(pairs) <= 5
    assert all(len(pair) == 2 for pair in pairs)


@pytest.mark.parametrize(("options", "message"), [
    (("--format", "delf", "--pairs", "all"), "has no matches; use --pairs and --index with --format hloc or colmap"),
    (("--format", "hloc", "--pairs", "all", "--index", "i"), "give one of them"),
    (("--format", "numpy", "--camera", "PINHOLE,1,1,1,1"), "--camera is for --format colmap"),
    (("--format", "colmap", "--camera", "PINHOLE,1"), "give COLMAP's model and all of its numbers"),
    (("--format", "colmap", "--camera", "ROUND,1"), "give COLMAP's model and all of its numbers"),
    (("--format", "hloc", "--pairs", "none.txt"), "none.txt: cannot be read"),
    (("--format", "hloc", "--top", "0"), "--top is 0"),
    (("--format", "hloc", "--max-error", "0"), "--max-error is 0"),
    (("--format", "delf", "--images", "/elsewhere"), "is not in /elsewhere"),
])  # fmt: skip
def test_wrong_options_are_one_line(
    run: Run, store: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    outcome = run("export", store, "--out", tmp_path / "out", *options)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert not (tmp_path / "out" / "matches.h5").exists()


def test_pairs_of_unknown_photos_are_named(run: Run, store: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.txt"
    for text, message in (("a.jpg graf1.jpg\n", "names a.jpg, which is not in the store"), ("one\n", "not two names")):
        pairs.write_text(text)
        outcome = run("export", store, "--format", "colmap", "--pairs", pairs, "--out", tmp_path / "d.db")
        assert outcome.code == 2
        assert message in outcome.err
        assert not (tmp_path / "d.db").exists()


@pytest.mark.parametrize(("kind", "module"), [("hloc", "h5py"), ("colmap", "pycolmap")])
def test_absent_libraries_are_named_with_the_extra(
    run: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    outcome = run("export", store, "--format", kind, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert f"{module}; install it with `pip install delf-jax[sfm]`" in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.rglob("*.tmp")) == []
