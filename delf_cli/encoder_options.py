"""The options of the encoder whose features `delf-jax fit-localizer` fits."""

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from delf_cli.options import UsageError
from delf_jax.settings import Precision

if TYPE_CHECKING:
    import localization.encoders.base


@dataclasses.dataclass(frozen=True)
class EncoderOptions:
    """The network and the layer whose features are fitted.

    Attributes:
        layer: feature map of the network. The deepest finds whole objects best; earlier ones are finer.
        conv5_stride: 1 makes conv5 as fine as conv4; the packaged weights were trained with 2.
        max_side: reduce photos to this longest side, in pixels.
        model: name of a packaged model, or path of a model folder or backbone file.
        precision: float32 is exact on every device. bfloat16 is faster on accelerators.
        batch_size: number of photos that each device computes at once.
    """

    layer: Annotated[str | None, arg(help_behavior_hint="(default: the deepest, conv5 of a ResNet)")] = None
    conv5_stride: Annotated[Literal[1, 2] | None, arg(help_behavior_hint="(default: that of the model)")] = None
    max_side: int = 448
    model: str = "delf-r50"
    precision: Precision = "float32"
    batch_size: Annotated[int | None, arg(help_behavior_hint="(default: depends on the device)")] = None

    def check(self) -> None:
        """Raises UsageError if a value is impossible."""
        if self.max_side < 16:
            raise UsageError(f"--max-side is {self.max_side}; it must be at least 16 pixels")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be at least 1")

    def load(self, paths: Sequence[str]) -> "localization.encoders.base.Encoder":
        """The encoder for photos or, if the paths are .npy files, for feature maps.

        Raises:
            UsageError: there are both photos and feature maps.
        """
        from delf_cli import environment

        environment.keep_memory()
        environment.start_jax()
        import delf_jax
        import localization

        maps = sum(path.endswith(".npy") for path in paths)
        if maps == len(paths):
            return localization.MapEncoder()
        if maps:
            raise UsageError("photos and .npy feature maps cannot be fitted together; run fit-localizer once for each")
        extractor = delf_jax.load(
            self.with_absolute_model().model,
            head=delf_jax.Head(),
            scorer="norm",
            max_side=self.max_side,
            precision=self.precision,
            conv5_stride=self.conv5_stride,
            batch_size=self.batch_size,
        )
        return localization.ExtractorEncoder(extractor, layer=self.layer)

    def with_absolute_model(self) -> "EncoderOptions":
        """The same options with the absolute path of the model, which works from other folders too."""
        from delf_jax.loading import PACKAGED

        if self.model in PACKAGED or not os.path.exists(self.model):
            return self
        return dataclasses.replace(self, model=os.path.abspath(self.model))
