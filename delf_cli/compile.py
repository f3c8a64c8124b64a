"""`delf-jax compile`: compiles the extraction programs of given settings ahead of time."""

import dataclasses
import re
import time
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import Positional, arg

from delf_cli import environment, input_photos
from delf_cli.options import ExtractionOptions, UsageError
from delf_cli.report import Report
from delf_jax.errors import ImageError

if TYPE_CHECKING:
    from delf_jax.extractor import Extractor
    from delf_jax.photos.buckets import Bucket


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compile:
    """Compile the programs that `delf-jax extract` needs, for a machine image or before a job begins.

    Photos are padded to a few sizes, and there is one program for each. The programs are for this type of processor or
    accelerator, for the given settings, and for these versions of JAX and delf-jax.

    Attributes:
        paths: photos, folders, globs or addresses whose sizes are looked at.
        sizes: sizes of photos, HEIGHTxWIDTH in pixels. Without photos and sizes, programs for all sizes are compiled.
        json: print JSON lines: one for each program, then one with the folder.
    """

    paths: Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTOS...", help_behavior_hint="(default: none)")] = ()
    sizes: Annotated[tuple[str, ...], arg(metavar="HxW...", help_behavior_hint="(default: none)")] = ()
    extraction: ExtractionOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax compile --sizes 768x1024 1024x768"

    def run(self, report: Report) -> None:
        """Compiles what is not there yet."""
        sizes = [_size(text) for text in self.sizes]
        self.extraction.check()
        sizes += self._sizes_of_photos(report)
        if self.paths and not sizes:
            return
        folder = environment.start_jax()
        if folder is None:
            raise UsageError("compiled programs cannot be kept; set DELF_JAX_CACHE to a folder that can be written")
        extractor = self.extraction.load()
        from delf_jax.photos.meter import CompilationCount

        for bucket in _buckets(extractor, sizes):
            begin = time.monotonic()
            with CompilationCount() as count:
                extractor.compile(bucket)
            seconds = time.monotonic() - begin
            name = f"{bucket[0]}x{bucket[1]}"
            is_new = count.total().compiled > 0
            text = f"{name}: compiled in {seconds:.1f} s" if is_new else f"{name}: already there"
            report.result({"canvas": name, "compiled": is_new, "seconds": round(seconds, 3)}, text)
        report.succeeded += 1
        report.result({"folder": str(folder)}, f"the programs are in {folder}")

    def _sizes_of_photos(self, report: Report) -> list[tuple[int, int]]:
        if not self.paths:
            return []
        from delf_jax.photos.load import frame_of

        sizes = set()
        for path in input_photos.find_paths(self.paths, report):
            try:
                sizes.add(frame_of(path).upright_size)
            except ImageError as error:
                report.failure("image", error.source, error.reason)
        return sorted(sizes)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)
    if match is None:
        raise UsageError(f"--sizes has {text!r}; write HEIGHTxWIDTH in pixels, for example 768x1024")
    return int(match[1]), int(match[2])


def _buckets(extractor: "Extractor", sizes: list[tuple[int, int]]) -> "list[Bucket]":
    """The canvases of photos of these sizes, the smallest first; all canvases if there are no sizes."""
    from delf_jax.photos.buckets import choose_bucket
    from delf_jax.photos.load import reduced_size

    used = {choose_bucket(*reduced_size(size, extractor.settings.max_side), extractor.buckets) for size in sizes}
    return [bucket for bucket in extractor.buckets if bucket in used or not sizes]
