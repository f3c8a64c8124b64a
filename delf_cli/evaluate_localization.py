"""`delf-jax evaluate localization`: accuracy of boxes and maps on photos with true boxes or masks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_cli.options import UsageError
from delf_cli.report import Report

if TYPE_CHECKING:
    import localization
    from localization.evaluation.annotated_photo import AnnotatedPhoto
    from localization.evaluation.evaluation import Evaluation
    from localization.evaluation.protocols import FittingPhotos, Protocol
    from localization.foreground.classes import Classifier

_SHOWN = {
    "foreground": "foreground w*",
    "class": "w* of the true class",
    "activation sum": "activation sum (CAAM)",
    "centre": "centre (baseline)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateLocalization:
    """Measure localization on photos with true boxes, and compare it with baselines.

    Without --predictor, a predictor is fitted to the training split, or to all photos if there is no split. It may use
    class labels, but never boxes. GT-Known is the share of photos whose box has IoU 0.5 or more with the true box.
    CorLoc is the same if any of several true boxes may match. Top-1 and Top-5 also require the right class. With true
    masks, PxAP and PIoU compare every pixel, without a threshold.

    Attributes:
        data: folder of the data set, or a CSV file with the columns file,xmin,ymin,xmax,ymax and, optionally, label.
        layout: layout of the data set; tfds means prepared by TFDS as ArrayRecord.
        predictor: evaluate this predictor, as written by `delf-jax fit-localizer`.
        layer: layer of the predictor that is fitted.
        model: model of the predictor that is fitted.
        conv5_stride: 1 makes conv5 as fine as conv4.
        max_side: reduce whole photos to this longest side, in pixels.
        protocol: how photos are prepared. fine-grained resizes to 480 and crops to 448, imagenet resizes to 256 and
            crops to 224, wsolevaluation resizes to 224, full keeps whole photos in their own shape.
        map_scales: average the maps of the photo at these scales.
        probe: also predict classes by a linear probe. This reads the training photos once more.
        validation: choose the map threshold on this many photos, held out from the training split. With 0 it is the
            best threshold on the test photos themselves; the result says oracle then.
        json: print one JSON line per method.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    layout: Literal["auto", "cub", "voc", "coco", "imagenet", "yolo", "csv", "tfds"] = "auto"
    predictor: Annotated[str | None, arg(help_behavior_hint="(default: fitted to the training split)")] = None
    layer: Annotated[str | None, arg(help_behavior_hint="(default: the deepest, conv5 of a ResNet)")] = None
    model: str = "delf-r50"
    conv5_stride: Annotated[Literal[1, 2] | None, arg(help_behavior_hint="(default: that of the model)")] = None
    max_side: int = 448
    protocol: Literal["fine-grained", "imagenet", "wsolevaluation", "full"] = "fine-grained"
    map_scales: tuple[float, ...] = (1.0,)
    probe: bool = False
    validation: int = 0
    json: bool = False

    example: ClassVar[str] = "delf-jax evaluate localization CUB_200_2011/ --layout cub"

    def run(self, report: Report) -> None:
        """Fits a predictor if none is given, localizes every test photo, and prints the table."""
        self._check()
        from delf_cli import environment

        environment.start_jax()
        from localization.evaluation import datasets, evaluation, protocols

        photos = datasets.read(self.data, layout=None if self.layout == "auto" else self.layout)
        protocol = protocols.PROTOCOLS[self.protocol]
        fitting, validation, test = _split(photos, self.validation, self.data)
        fitted = protocols.FittingPhotos(fitting, side=protocol.fit_side)
        with report.progress("fitting"):
            predictor = self._predictor(fitted, fitting, protocol)
            classifiers = self._probe(predictor, fitted, fitting) if self.probe else {}
        options: dict[str, Any] = {"protocol": protocol, "classifiers": classifiers, "scales": self.map_scales}
        with report.progress("evaluating"):
            chosen = evaluation.evaluate(predictor, validation, **options) if validation else None
            measured = evaluation.evaluate(predictor, test, **options)
        failed = [*fitted.failed.values(), *(chosen.failed if chosen else ()), *measured.failed]
        # Without a split, the same photo can fail in fitting and in testing. It is reported once.
        for source, error in {error.source: error for error in failed}.items():
            report.failure("image", source, error.reason)
        report.succeeded += len(measured.areas)
        rows = [
            evaluation.summary(measured, m.method, default_threshold=predictor.map_threshold, chosen_on=chosen)
            for m in measured.methods
        ]
        found = float((measured.scores > predictor.found_threshold).mean())
        if self.json:
            common = {
                "data": self.data,
                "photos": len(measured.areas),
                "protocol": protocol.name,
                "measure": protocol.measure,
                "box_convention": protocol.convention,
                "found": found,
            }
            for row in rows:
                report.result(common | row, "")
        else:
            report.result({}, self._table(rows, measured, chosen, predictor, found))

    def _check(self) -> None:
        if self.validation < 0:
            raise UsageError(f"--validation is {self.validation}; it must be at least 0")
        if self.max_side < 16:
            raise UsageError(f"--max-side is {self.max_side}; it must be at least 16 pixels")
        if not self.map_scales or not all(0 < scale <= 4 for scale in self.map_scales):
            raise UsageError(f"--map-scales is {self.map_scales}; each scale must be above 0 and at most 4")
        if self.predictor is not None and self.conv5_stride is not None:
            raise UsageError("--conv5-stride is a setting of the predictor; leave it out with --predictor")
        if self.predictor is not None and self.layer is not None:
            raise UsageError("--layer is a setting of the predictor; leave it out with --predictor")

    def _predictor(
        self, fitted: "FittingPhotos", photos: Sequence["AnnotatedPhoto"], protocol: "Protocol"
    ) -> "localization.Predictor":
        import localization

        if self.predictor is not None:
            return localization.Predictor.open(self.predictor)
        encoder = localization.backbone_encoder(
            self.model,
            layer=self.layer,
            max_side=getattr(protocol, "crop", self.max_side),
            conv5_stride=self.conv5_stride,
        )
        return localization.fit(fitted, encoder=encoder, labels=_labels(photos) or None, max_points=0)

    def _probe(
        self, predictor: "localization.Predictor", fitted: "FittingPhotos", photos: Sequence["AnnotatedPhoto"]
    ) -> "Mapping[str, Classifier]":
        from localization.foreground import classes

        labels = _labels(photos)
        if len(set(labels.values())) < 2:
            raise UsageError(f"--probe needs training photos of two or more classes, which {self.data} does not have")
        return {
            "linear probe": classes.linear_probe(
                classes.mean_features(fitted, encoder=predictor.running_encoder), labels
            )
        }

    def _table(
        self,
        rows: Sequence[dict[str, Any]],
        measured: "Evaluation",
        chosen: "Evaluation | None",
        predictor: "localization.Predictor",
        found: float,
    ) -> list[str]:
        from localization.evaluation.protocols import PROTOCOLS

        source = f"chosen on {len(chosen.areas)} held-out photos" if chosen else "oracle, the best on these test photos"
        encoder, protocol = predictor.statistics.encoder, PROTOCOLS[self.protocol]
        lines = [
            f"{self.data}: {len(measured.areas)} photos, protocol {protocol.name}, {encoder.get('layer', 'features')}, "
            f"w* of {predictor.statistics.photos} photos",
            f"map threshold: {source}; the default is {predictor.map_threshold:g}",
            "",
            f"{'':24}{protocol.measure:>8}  threshold  at default  MaxBoxAccV2 official  wsolevaluation"
            "   small  middle   large    PxAP    PIoU",
        ]
        for row in rows:
            cells = [
                f"{_SHOWN[row['method']]:24}{row['accuracy']:8.1%}",
                f"{row['threshold']:9.2f}" if row["threshold"] is not None else " " * 9,
                f"{row['accuracy_default']:10.1%}",
                f"{row['max_box_acc_v2']['official']:20.1%}",
                f"{row['max_box_acc_v2']['wsolevaluation']:14.1%}",
                *(f"{share:6.1%}" for share in row["by_area"]),
                *(f"{row[name]:6.1%}" if row[name] is not None else f"{'-':>6}" for name in ("pxap", "piou")),
            ]
            lines.append("  ".join(cells))
        for classifier in measured.logits:
            lines += ["", f"{'classes by ' + classifier:24}   Top-1   Top-5  at default: Top-1   Top-5"]
            for row in rows:
                tops = [row[classifier][name] for name in ("top1", "top5", "top1_default", "top5_default")]
                shares = [f"{share:6.1%}" for share in tops]
                lines.append("  ".join([f"{_SHOWN[row['method']]:24}", *shares[:2], " " * 10, *shares[2:]]))
        return [*lines, "", f"found: {found:.1%} of the photos (score above {predictor.found_threshold:g})"]


def _labels(photos: Sequence["AnnotatedPhoto"]) -> dict[str, str]:
    return {str(photo.path): photo.label for photo in photos if photo.label is not None}


def _split(
    photos: Sequence["AnnotatedPhoto"], validation: int, name: str
) -> tuple[list["AnnotatedPhoto"], list["AnnotatedPhoto"], list["AnnotatedPhoto"]]:
    """The photos for fitting, for choosing the threshold, and for the test."""
    boxed = [photo for photo in photos if photo.boxes]
    if not boxed:
        raise UsageError(f"{name}: none of the {len(photos)} photos has a true box; check the folder and --layout")
    train = [photo for photo in photos if photo.train]
    test = [photo for photo in boxed if not photo.train]
    if not train or not test:
        train, test = list(photos), boxed
    held_out = [photo for photo in train if photo.boxes]
    if validation >= len(held_out):
        raise UsageError(f"--validation is {validation}, and there are only {len(held_out)} training photos with boxes")
    chosen = held_out[:: max(1, len(held_out) // validation)][:validation] if validation else []
    paths = {photo.path for photo in chosen}
    return [p for p in train if p.path not in paths], chosen, [p for p in test if p.path not in paths]
