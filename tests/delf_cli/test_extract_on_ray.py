"""`delf-jax extract --ray`: what it says without Ray, and that it can be interrupted like the plain job."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from delf_cli.main import main
from delf_jax.job.ray_session import Workers
from delf_jax.store.reader import FeatureStore
from tests.conftest import ROOT
from tests.delf_cli.conftest import Run
from tests.delf_jax.job.stores import photos_in, rows

# Small parts, so that the interruption comes between the first part and the end.
_PHOTOS, _PART = 160, 32
_COMMAND = f"""
import sys
from delf_cli.main import main
from delf_jax.job import extraction_job as job
run = job.run
job.run = lambda *args, options, **more: run(*args, options=options._replace(part_photos={_PART}), **more)
sys.exit(main(sys.argv[1:]))
"""


def test_without_ray_it_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, photos: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = run("extract", photos, "--out", tmp_path / "store", *small, "--ray", "local")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("delf-jax: Ray is not installed (")
    assert outcome.err.endswith("); pip install 'delf-jax[ray]'\n")
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_one_goes_on(
    ray_workers: Workers, small: tuple[str, ...], demo_photos: Path, tmp_path: Path
) -> None:
    import ray

    photos = tmp_path / "photos"
    photos.mkdir()
    with Image.open(demo_photos / "graf1.jpg") as photo:
        photo.resize((160, 128)).save(photos / "0.jpg")
    for number in range(1, _PHOTOS):
        shutil.copy(photos / "0.jpg", photos / f"{number}.jpg")

    def start(out: Path, *place: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", _COMMAND, "extract", str(photos), *small, "--out", str(out)]
        return subprocess.Popen(
            [*command, *place, "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    address = ray.get_runtime_context().gcs_address
    out, cluster = tmp_path / "store", ("--ray", address, "--ray-workers", "1")
    with start(out, *cluster) as process:
        while not photos_in(out):
            time.sleep(0.01)
            assert process.poll() is None
        begin = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        said, err = process.communicate()
    assert (process.returncode, said) == (130, "")
    assert err.startswith("delf-jax: interrupted;")
    assert err.count("\n") == 1
    assert time.monotonic() - begin < 20
    stored = FeatureStore.open(out)
    assert stored.check() == []
    assert _PART <= len(stored) < _PHOTOS
    with start(out, *cluster) as process:
        err = process.communicate()[1]
    assert (process.returncode, err) == (0, "")
    assert main(["extract", str(photos), *small, "--out", str(tmp_path / "here")]) == 0
    assert rows(out) == rows(tmp_path / "here")
