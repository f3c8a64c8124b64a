"""The benchmark of cold starts measures whole processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import cold_start
from delf_jax.errors import DelfError


def test_a_process_is_measured_to_its_end(tmp_path: Path) -> None:
    code = "import time; held = bytearray(300_000_000); end = time.process_time() + 0.2\n"
    code += "while time.process_time() < end: pass\nprint('first'); print(len(held))"
    # In a process of its own: the kernel counts what this one holds when it starts another as held by that one.
    measure = "import json, sys; from benchmarks.cold_start import measured; from pathlib import Path\n"
    measure += "print(json.dumps(vars(measured([sys.executable, '-c', sys.argv[1]], cache=Path(sys.argv[2])))))"
    command = [sys.executable, "-c", measure, code, str(tmp_path)]
    run = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert run["answer"] == "300000000"
    assert run["core_seconds"] >= 0.2
    assert 300 <= run["megabytes"] < 400


def test_a_failure_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(DelfError, match="exit code 3"):
        cold_start.measured([sys.executable, "-c", "raise SystemExit(3)"], cache=tmp_path)


def test_forty_photos_have_ten_sizes_and_the_first_two_640_by_480(tmp_path: Path) -> None:
    sizes = []
    for photo in cold_start.write_photos(tmp_path / "photos"):
        with Image.open(photo) as image:
            sizes.append(image.size)
    assert len(sizes) == 40
    assert len(set(sizes)) == 10
    assert sizes[:2] == [(640, 480), (640, 480)]
