"""The long runs: ``python -m tests.fuzz [READER...] [--runs N] [--seconds T] [--seed S] [--engine mutate|atheris]``.

Every input is read by one process with bounded memory; whatever is neither an answer nor a DelfError, takes more than
ten seconds, or leaves a file elsewhere, is a finding. It is kept in the folder ``--findings``, and the counts are added
to ``--results``. With atheris the bytes are mutated where that reaches new lines of this project's code.

The table in ``docs/reliability.md`` is made by ``python -m tests.fuzz none --results benchmarks/results/fuzz.json
--docs docs/reliability.md``.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import logging
import mmap
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz import results

MEMORY = 4 << 30
SECONDS = 10


class Hang(BaseException):
    """An input took too long."""


def main() -> int:
    """Runs the readers, one after another; the exit code is 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", help="all of them if none is named; or none")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end earlier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("mutate", "atheris"), default="mutate")
    parser.add_argument("--findings", default="fuzz_findings")
    parser.add_argument("--results", help="JSON file to which the counts are added")
    parser.add_argument("--docs", help="Markdown file whose table is replaced by what --results holds")
    options = parser.parse_args()
    options.findings = os.path.abspath(options.findings)
    options.results = options.results and os.path.abspath(options.results)
    if options.docs:
        results.write_table(Path(options.docs), Path(options.results))
    if options.readers == ["none"]:
        return 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if options.engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["delf_jax", "retrieval", "localization"]):
            from tests.fuzz import readers
    else:
        from tests.fuzz import readers
    found = 0
    for name in options.readers or readers.READERS:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
            found |= _guarded(_Run(options, name, readers.READERS[name], Path(folder)))
    return found


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
        return run.summary()
    return status


class _Run:
    def __init__(self, options: argparse.Namespace, name: str, reader: object, folder: Path) -> None:
        self.options = options
        self.name = name
        self.reader = reader
        self.place = folder / "inside"
        self.around = folder
        self.place.mkdir()
        os.chdir(folder)
        self.count: collections.Counter[str] = collections.Counter()
        self.findings: dict[str, bytes] = {}
        self.last = mmap.mmap(-1, 1 << 22)
        self.begin = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether inputs or time are used up."""
        return self.count.total() >= self.options.runs or time.monotonic() - self.begin > self.options.seconds

    def one(self, data: bytes) -> None:
        """Reads one input and judges what happens."""
        from delf_jax.errors import DelfError

        self.last[: 8 + len(data)] = len(data).to_bytes(8, "little") + data
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            self.reader.read(data, self.place)  # type: ignore[attr-defined]
            self.count["read"] += 1
        except DelfError as error:
            if "\n" in str(error):
                self.found(f"several lines: {type(error).__name__}", data)
            else:
                self.count["refused"] += 1
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
        logging.disable()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        self.begin = time.monotonic()
        if self.options.engine == "atheris":
            self._atheris()
        else:
            for data in readers.inputs(self.reader, self.place, seed=self.options.seed):  # type: ignore[arg-type]
                self.one(data)
                if self.is_over:
                    break
        return self.summary()

    def _atheris(self) -> None:
        import atheris

        seeds = self.reader.seeds(self.place)  # type: ignore[attr-defined]
        corpus = Path(tempfile.mkdtemp(dir=self.around.parent))
        for number, data in enumerate(seeds):
            (corpus / str(number)).write_bytes(data)

        def test(data: bytes) -> None:
            self.one(data)
            if self.is_over:  # libFuzzer ends the process by itself, without coming back
                shutil.rmtree(corpus)
                os._exit(self.summary())

        def mutated(data: bytes, most: int, seed: int) -> bytes:
            """Now and then as without coverage, which gets behind checksums."""
            rng = random.Random(seed)
            if rng.randrange(2):
                with contextlib.suppress(Exception):  # of an input that is too broken for it
                    return bytes(self.reader.mutate(data, seeds, rng)[:most])  # type: ignore[attr-defined]
            return bytes(atheris.Mutate(data, most))

        os.chdir(corpus)
        longest = max(8192, *(2 * len(data) for data in seeds))
        # Its own alarm would take the place of ours.
        flags = (f"-max_len={longest}", f"-seed={self.options.seed + 1}", "-rss_limit_mb=0", "-timeout=0")
        atheris.Setup(["fuzz", str(corpus), *flags, "-verbosity=0"], test, custom_mutator=mutated)
        atheris.Fuzz()

    def summary(self) -> int:
        """Prints and keeps what was found."""
        name, options = self.name, self.options
        for data in self.findings.values():
            folder = Path(options.findings) / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        record = {
            "reader": name,
            "engine": options.engine,
            "seed": options.seed,
            "inputs": self.count.total(),
            **self.count,
            "seconds": round(time.monotonic() - self.begin, 1),
            "peak_mib": memory,
            "kinds": sorted(self.findings),
        }
        print(json.dumps(record), flush=True)
        if options.results:
            results.add(Path(options.results), record)
        return int(bool(self.findings))


if __name__ == "__main__":
    sys.exit(main())
