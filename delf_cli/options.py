"""The options that subcommands share."""

import dataclasses
import os
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from delf_jax.errors import DelfError
from delf_jax.settings import ExtractionSettings, Precision, Preset, Scorer

if TYPE_CHECKING:
    import delf_jax.extraction.head
    import delf_jax.extractor

Photos = Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTOS...", help_behavior_hint="(required)")]


class UsageError(DelfError):
    """An option has an impossible value, or options contradict each other."""


def _shown(default: str) -> object:
    return arg(help_behavior_hint=f"(default: {default})")


@dataclasses.dataclass(frozen=True)
class ExtractionOptions:
    """How features are computed. An option that is not given keeps the setting of the index or store, or the default.

    Attributes:
        model: name of a packaged or imported model, or path of a model folder or file.
        preset: fast, default or best: scales, size and number of features, unless other options say otherwise.
        as_released: use the scales, the score threshold and the feature grid of the model's authors, unless other
            options say otherwise.
        head: head file (PCA, foreground vector, attention) to use instead of the model's own. `delf-jax pca`,
            `descriptors` and `train` write such files.
        scorer: the score that decides which features are kept.
        max_features: most features per photo, over all scales.
        max_side: reduce photos to this longest side first, in pixels.
        scales: image scales of the pyramid.
        batch_size: number of photos that each device computes at once.
        precision: float32 is exact on every device. bfloat16 is faster on accelerators.
        threshold: keep only features whose score is at least this.
        quantile: keep only features whose score is above this quantile of the photo's scores (0 to 1).
    """

    model: Annotated[str | None, _shown("delf-r50")] = None
    preset: Annotated[Preset | None, _shown("default")] = None
    as_released: bool = False
    head: Annotated[str | None, _shown("the model's own")] = None
    scorer: Annotated[Scorer | None, _shown(ExtractionSettings.scorer)] = None
    max_features: Annotated[int | None, _shown(str(ExtractionSettings.max_features))] = None
    max_side: Annotated[int | None, _shown(str(ExtractionSettings.max_side))] = None
    scales: Annotated[tuple[float, ...] | None, _shown(" ".join(map(str, ExtractionSettings.scales)))] = None
    batch_size: Annotated[int | None, _shown("depends on the device")] = None
    precision: Annotated[Precision | None, _shown(ExtractionSettings.precision)] = None
    threshold: Annotated[float | None, _shown("keep all")] = None
    quantile: Annotated[float | None, _shown("keep all")] = None

    def settings(self, base: ExtractionSettings | None = None) -> ExtractionSettings:
        """The base settings (None: the defaults) changed by the options that were given; UsageError if impossible."""
        names = {field.name for field in dataclasses.fields(ExtractionSettings)}
        given = {name: value for name, value in vars(self).items() if name in names and value is not None}
        base = base or ExtractionSettings()
        if self.preset is not None:
            base = base.with_preset(self.preset)
        try:
            return dataclasses.replace(base, **given)
        except ValueError as error:
            raise UsageError(f"{error} (see --help)") from error

    def check(self) -> None:
        """Raises UsageError if a value is impossible. Call it before slow work begins."""
        self.settings()
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be at least 1")

    def load(
        self,
        *,
        base: ExtractionSettings | None = None,
        head: "str | os.PathLike[str] | delf_jax.extraction.head.Head | None" = None,
    ) -> "delf_jax.extractor.Extractor":
        """The extractor for these options. ``base`` and ``head`` are those of the index or store that it belongs to."""
        self.check()
        from delf_cli import environment

        environment.keep_memory()
        environment.start_jax()
        import delf_jax

        if self.as_released:
            base = delf_jax.released_settings(self.settings(base).model, base)
        settings = self.settings(base)
        return delf_jax.load(settings.model, settings=settings, head=self.head or head, batch_size=self.batch_size)
