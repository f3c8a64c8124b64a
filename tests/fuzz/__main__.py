"""The long runs: ``python -m tests.fuzz READER [--runs N] [--seed S] [--engine mutate|atheris]``.

Every input is read by one process with bounded memory; whatever is neither an answer nor a DelfError, takes more than
ten seconds, or leaves a file elsewhere, is a finding. It is kept in the folder ``--findings``, and the counts are added
to ``--results``. With atheris the bytes are mutated where that reaches new lines of this project's code.
"""

import argparse
import collections
import hashlib
import json
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

MEMORY = 4 << 30
SECONDS = 10


class Hang(BaseException):
    """An input took too long."""


def main() -> int:
    """Runs one reader; the exit code is the number of kinds of findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("reader")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("mutate", "atheris"), default="mutate")
    parser.add_argument("--findings", default="fuzz_findings")
    parser.add_argument("--results")
    options = parser.parse_args()
    options.findings = os.path.abspath(options.findings)
    options.results = options.results and os.path.abspath(options.results)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if options.engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["delf_jax", "retrieval", "localization"]):
            from tests.fuzz import readers
    else:
        from tests.fuzz import readers
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        return _guarded(_Run(options, readers.READERS[options.reader], Path(folder)))


def _guarded(run: "_Run") -> int:
    """Runs in a child, which a crash of a compiled library may end; the input that did it is kept."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = run.run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        size = int.from_bytes(run.last[:8], "little")
        run.found(f"ended by signal {-status}", run.last[8 : 8 + size])
        return run.summary(0.0)
    return status


class _Run:
    def __init__(self, options: argparse.Namespace, reader: object, folder: Path) -> None:
        self.options = options
        self.reader = reader
        self.place = folder / "inside"
        self.around = folder
        self.place.mkdir()
        os.chdir(folder)
        self.count: collections.Counter[str] = collections.Counter()
        self.findings: dict[str, bytes] = {}
        self.last = mmap.mmap(-1, 1 << 22)

    def one(self, data: bytes) -> None:
        """Reads one input and judges what happens."""
        from delf_jax.errors import DelfError

        self.last[: 8 + len(data)] = len(data).to_bytes(8, "little") + data
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            self.reader.read(data, self.place)  # type: ignore[attr-defined]
            self.count["read"] += 1
        except DelfError as error:
            self.count["refused" if "\n" not in str(error) else "refused in several lines"] += 1
        except BaseException as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            self.found(f"{type(error).__name__} in {Path(frame.filename).name}:{frame.name}", data)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if os.listdir(self.around) != ["inside"]:
            self.found("a file outside", data)

    def found(self, kind: str, data: bytes) -> None:
        """Counts a finding, and keeps the smallest of its kind."""
        self.count["finding"] += 1
        if kind not in self.findings or len(data) < len(self.findings[kind]):
            self.findings[kind] = data

    def run(self) -> int:
        """All inputs."""
        from tests.fuzz import readers

        def hang(*_: object) -> None:
            raise Hang

        signal.signal(signal.SIGALRM, hang)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        begin = time.monotonic()
        if self.options.engine == "atheris":
            self._atheris()
        else:
            source = readers.inputs(self.reader, self.around / "inside", seed=self.options.seed)  # type: ignore[arg-type]
            for _, data in zip(range(self.options.runs), source):
                self.one(data)
        return self.summary(time.monotonic() - begin)

    def _atheris(self) -> None:
        import atheris

        corpus = Path(tempfile.mkdtemp(dir=self.around.parent))
        for number, data in enumerate(self.reader.seeds(self.place)):  # type: ignore[attr-defined]
            (corpus / str(number)).write_bytes(data)
        remaining = [self.options.runs]
        begin = time.monotonic()

        def test(data: bytes) -> None:
            self.one(data)
            remaining[0] -= 1
            if remaining[0] == 0:  # libFuzzer ends the process by itself, without coming back
                os._exit(self.summary(time.monotonic() - begin))

        os.chdir(corpus)
        atheris.Setup(["fuzz", str(corpus), "-max_len=8192", "-rss_limit_mb=0", "-verbosity=0"], test)
        atheris.Fuzz()

    def summary(self, seconds: float) -> int:
        """Prints and keeps what was found."""
        name, options = self.options.reader, self.options
        for data in self.findings.values():
            folder = Path(options.findings) / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        record = {
            "reader": name,
            "engine": options.engine,
            "seed": options.seed,
            "inputs": sum(self.count.values()),
            **self.count,
            "seconds": round(seconds, 1),
            "peak_mib": memory,
            "kinds": sorted(self.findings),
        }
        print(json.dumps(record), flush=True)
        if options.results:
            with open(options.results, "a") as file:
                file.write(json.dumps(record) + "\n")
        return len(self.findings)


if __name__ == "__main__":
    sys.exit(main())
