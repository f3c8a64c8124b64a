"""The options that subcommands share."""

import dataclasses
import os
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from delf_jax.errors import DelfError
from delf_jax.settings import ExtractionSettings, Precision, Scorer

if TYPE_CHECKING:
    import delf_jax.extraction.head
    import delf_jax.extractor

Photos = Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTOS...", help_behavior_hint="(required)")]


class UsageError(DelfError):
    """Options that cannot be followed, alone or together."""


def _shown(default: str) -> object:
    return arg(help_behavior_hint=f"(default: {default})")


@dataclasses.dataclass(frozen=True)
class ExtractionOptions:
    """How features are computed. What is not given is left as it is: in the index that is searched, or the default.

    Attributes:
        model: name of a packaged or imported model, or the path of a model folder or file.
        as_released: with the scales, threshold and cells that the model's authors used, where not told otherwise.
        head: head file (PCA, foreground vector, attention) in place of the model's own, as written by `delf-jax pca`.
        scorer: what decides which features are kept.
        max_features: features kept per photo, over all scales.
        max_side: photos are first reduced to this longest side, in pixels.
        scales: image scales of the pyramid.
        batch_size: photos computed at once on each device.
        precision: float32 is exact everywhere; bfloat16 is the fast one on accelerators.
        threshold: keep features whose score is at least this.
        quantile: keep features whose score is in the photo's own upper part above this quantile (0 to 1).
    """

    model: Annotated[str | None, _shown("delf-r50")] = None
    as_released: bool = False
    head: Annotated[str | None, _shown("the model's own")] = None
    scorer: Annotated[Scorer | None, _shown(ExtractionSettings.scorer)] = None
    max_features: Annotated[int | None, _shown(str(ExtractionSettings.max_features))] = None
    max_side: Annotated[int | None, _shown(str(ExtractionSettings.max_side))] = None
    scales: Annotated[tuple[float, ...] | None, _shown(" ".join(map(str, ExtractionSettings.scales)))] = None
    batch_size: Annotated[int | None, _shown("by device")] = None
    precision: Annotated[Precision | None, _shown(ExtractionSettings.precision)] = None
    threshold: Annotated[float | None, _shown("keep all")] = None
    quantile: Annotated[float | None, _shown("keep all")] = None

    def settings(self, base: ExtractionSettings | None = None) -> ExtractionSettings:
        """The base settings (None: the defaults), with what was given put in their place; UsageError if impossible."""
        names = {field.name for field in dataclasses.fields(ExtractionSettings)}
        given = {name: value for name, value in vars(self).items() if name in names and value is not None}
        try:
            return dataclasses.replace(base or ExtractionSettings(), **given)
        except ValueError as error:
            raise UsageError(f"{error} (see --help)") from error

    def check(self) -> None:
        """Raises UsageError where a value is impossible, before anything slow begins."""
        self.settings()
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be at least 1")

    def load(
        self,
        *,
        base: ExtractionSettings | None = None,
        head: "str | os.PathLike[str] | delf_jax.extraction.head.Head | None" = None,
    ) -> "delf_jax.extractor.Extractor":
        """The extractor for these options; ``base`` and ``head`` are those of an index or store to agree with."""
        self.check()
        from delf_cli import environment

        environment.keep_memory()
        environment.start_jax()
        import delf_jax

        if self.as_released:
            base = delf_jax.released_settings(self.settings(base).model, base)
        settings = self.settings(base)
        return delf_jax.load(settings.model, settings=settings, head=self.head or head, batch_size=self.batch_size)
