"""What all tests share: the compilation cache, where photos lie, a way to run on several devices."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from delf_jax.job.ray_session import Workers

ROOT = Path(__file__).resolve().parent.parent

# They make the golden values with PyTorch, which the tests do without.
collect_ignore_glob = ["golden/make_*.py"]

# Read by JAX when it is first imported, by subprocesses too: compiled programs outlive a test run.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Most tests compile much longer than they compute; ``full_compilation`` is for the others.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# A shell's background job ignores Ctrl-C, and so would all that the tests start: what is handled here is default there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from delf_cli.demo import PHOTOS  # noqa: E402
from tests.tiny_model import write_tiny_model  # noqa: E402


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real photos with ground truth, which are not part of the repository."""
    folder = Path(os.environ.get("DELF_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no photos with ground truth in {folder}; DELF_SHARED names their folder")
    return folder


@pytest.fixture(scope="session")
def demo_photos() -> Path:
    """Folder of the packaged photos."""
    return PHOTOS


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small random model for ``delf_jax.load``."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def full_compilation() -> Iterator[None]:
    """Programs are compiled as users have them: for golden values, the main program and whole stories."""
    import jax

    # Programs in memory are used again whatever the setting, and the same program rounds differently with it.
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def few_canvases() -> Iterator[None]:
    """One canvas of 4:5 and one square in place of twelve: fewer programs to compile. Padding changes no feature."""
    from delf_jax import extractor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractor, "default_buckets", _few_buckets)
        yield


def _few_buckets(max_side: int) -> tuple[tuple[int, int], ...]:
    side = -(-max_side // 32) * 32
    return (-(-max_side // 40) * 32, side), (side, side)


@pytest.fixture(scope="session")
def on_devices() -> Callable[[int, str], str]:
    """Runs Python source in a process of its own with so many simulated devices, and returns what it printed.

    A process of its own, because the number of devices is fixed when JAX starts, and with eight of them every
    other test would pad its batches to a multiple of eight photos.
    """

    def run(devices: int, source: str) -> str:
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        finished = subprocess.run(
            [sys.executable, "-c", source], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


@pytest.fixture(scope="session")
def ray_workers() -> "Iterator[Workers]":
    """Two workers on a Ray cluster, the only one that the tests start."""
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from delf_jax.job import ray_session

    with ray_session.connected("local", workers=2) as workers:
        assert workers.number == 2
        yield workers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process has a long one left when the other is done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spreads the tests file by file; files that use Ray go to one process, which has the cluster."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            scope: str = super()._split_scope(nodeid)
            return "ray" if scope.endswith("_ray.py") else scope

    return Scheduling(config, log)
