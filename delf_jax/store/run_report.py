"""The report of one run of a job: a JSON file in the store, and a text file for Prometheus."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from delf_jax.errors import StoreError
from delf_jax.files.envelope import NewerVersionError, decode_envelope, encode_envelope

FORMAT = "delf-jax run"
VERSION = 1
RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
_NAME = re.compile(r"run-\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}\.json")


@dataclasses.dataclass(frozen=True)
class RunReport:
    """One run of an extraction.

    Attributes:
        outcome: "finished", "interrupted", "failed" or "running". A run that was killed still says "running".
        error: why it failed; None otherwise.
        started: seconds since 1970.
        seconds: how long it has taken.
        host, process: where it ran.
        devices: the kind of each device.
        done, skipped, failed: photos extracted; photos that the store already had; photos and names that could not be
            used.
        failures: number of photos for each reason (see ``failure_kind``).
        bytes_read: of the photo files.
        bytes_written: to the store.
        parts: number of parts written.
        stages: seconds in ``decode`` (the sum of its threads), ``compute`` (while the devices had a batch) and
            ``write``.
        compiled, cached: programs that XLA compiled, and programs that it found in the persistent cache.
        compile_seconds: the seconds of both.
    """

    outcome: str
    error: str | None
    started: float
    seconds: float
    host: str
    process: int
    devices: tuple[str, ...]
    done: int
    skipped: int
    failed: int
    failures: Mapping[str, int]
    bytes_read: int
    bytes_written: int
    parts: int
    stages: Mapping[str, float]
    compiled: int
    cached: int
    compile_seconds: float

    @property
    def device_idle_share(self) -> float:
        """Share of the run in which the devices had nothing to compute; 1 if nothing was measured."""
        busy = self.stages.get("compute", 0.0)
        return 1 - min(busy / self.seconds, 1) if self.seconds else 1.0

    @property
    def photos_per_second(self) -> float:
        """Photos extracted per second, over the whole run with its start and compilation."""
        return self.done / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values, with the values that follow from it."""
        derived = {"device_idle_share": self.device_idle_share, "photos_per_second": self.photos_per_second}
        return _rounded(dataclasses.asdict(self) | {"devices": list(self.devices)} | derived)

    def to_bytes(self) -> bytes:
        """The file in the store; ``from_bytes`` reads it back."""
        return encode_envelope(FORMAT, VERSION, self.to_json())

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> "RunReport":
        """Reads what ``to_bytes`` wrote; raises StoreError, which names the file, if it is damaged or newer."""
        damaged = StoreError(f"{name}: this run report is damaged; `delf-jax check STORE --repair` removes it")
        try:
            body = decode_envelope(data, format=FORMAT, newest=VERSION).body
            fields = {field.name: body[field.name] for field in dataclasses.fields(cls)}
            report = cls(**(fields | {"devices": tuple(map(str, fields["devices"]))}))
            if not report._is_plausible():
                raise damaged
            return report
        except NewerVersionError:
            raise StoreError(f"{name}: a newer delf-jax wrote it; update delf-jax") from None
        except (KeyError, TypeError, ValueError, AttributeError):
            raise damaged from None

    def _is_plausible(self) -> bool:
        counts = (self.done, self.skipped, self.failed, self.bytes_read, self.bytes_written, self.parts, self.process)
        programs = (self.compiled, self.cached, *self.failures.values())
        times = (self.started, self.seconds, self.compile_seconds, *self.stages.values())
        return (
            all(type(count) is int and 0 <= count < 1 << 62 for count in (*counts, *programs))
            and all(type(time) in (int, float) and 0 <= time < 1e15 for time in times)
            and all(type(text) is str for text in (self.outcome, self.host, self.error or ""))
        )

    def to_prometheus(self) -> bytes:
        """The text file for the textfile collector of a node exporter, with metrics named ``delf_jax_extract_...``."""
        from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

        registry = CollectorRegistry()

        def family(
            kind: type[Counter] | type[Gauge],
            name: str,
            help: str,
            values: Mapping[str, float] | float,
            label: str | None = None,
        ) -> None:
            metric: Any = kind(f"delf_jax_extract_{name}", help, [label] if label else [], registry=registry)
            for key, value in values.items() if isinstance(values, Mapping) else [(None, values)]:
                # The file is UTF-8, but names that could not be decoded have lone surrogates.
                child = metric if key is None else metric.labels(key.encode(errors="replace").decode())
                child.inc(value) if kind is Counter else child.set(value)

        photos = {"done": self.done, "skipped": self.skipped, "failed": self.failed}
        family(Counter, "photos", "Photos of this run by outcome.", photos, "outcome")
        family(Counter, "failures", "Photos that could not be used, by reason.", self.failures, "reason")
        moved = {"read": self.bytes_read, "written": self.bytes_written}
        family(Counter, "bytes", "Bytes read from photos and written to the store.", moved, "direction")
        family(Counter, "parts", "Parts written.", self.parts)
        family(Counter, "stage_seconds", "Seconds of each stage, summed over decoding threads.", self.stages, "stage")
        programs = {"compiled": self.compiled, "cached": self.cached}
        family(Counter, "programs", "XLA programs compiled or found in the cache.", programs, "source")
        family(Counter, "compile_seconds", "Seconds of compilation.", self.compile_seconds)
        family(Gauge, "device_idle_ratio", "Share of the run in which devices were idle.", self.device_idle_share)
        family(Gauge, "seconds", "Duration of this run in seconds.", self.seconds)
        family(Gauge, "started_timestamp_seconds", "Start of this run.", self.started)
        outcomes = {name: float(name == self.outcome) for name in (RUNNING, FINISHED, INTERRUPTED, FAILED)}
        family(Gauge, "outcome", "1 for the state of this run.", outcomes, "outcome")
        text: bytes = generate_latest(registry)
        return text


def failure_kind(reason: str) -> str:
    """The kind of a failure: an ``ImageError.reason`` without remedy, details and numbers, so that there are few kinds.

    >>> failure_kind("the file is damaged or cut short (broken data stream when reading); fetch it again")
    'the file is damaged or cut short'
    >>> failure_kind("40000 x 30000 pixels are above the limit of 200 megapixels; save it smaller")
    'N x N pixels are above the limit of N megapixels'
    """
    return re.sub(r"\d[\d.]*", "N", re.split(r"[;:(]", reason, maxsplit=1)[0].strip())[:80]


def is_run_name(name: str) -> bool:
    """Whether a name in the folder ``runs`` of a store is that of a report."""
    return _NAME.fullmatch(name) is not None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    return value
