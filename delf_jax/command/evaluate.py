"""`delf-jax evaluate`: how good the answers are, on photos whose truth is known."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_jax.command.options import UsageError
from delf_jax.command.report import Report

if TYPE_CHECKING:
    import localization
    from localization.datasets import Annotated as Photo
    from localization.evaluation import CropProtocol, Evaluation

_SHOWN = {
    "foreground": "foreground w*",
    "class": "w* of the true class",
    "activation sum": "activation sum (CAAM)",
    "centre": "centre box (baseline)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure localization on photos with true boxes, beside the baselines.

    Without --predictor, one is fitted to the training split (to all photos where the layout has no split), with their
    classes if they have any, never with their boxes. GT-Known is the share of photos whose box meets a true one at
    IoU 0.5; Top-1 and Top-5 ask for the right class too.

    Attributes:
        what: what is evaluated.
        data: folder of the data set, or a CSV file with columns file,xmin,ymin,xmax,ymax and maybe label.
        layout: how photos and boxes lie there.
        predictor: evaluate this predictor, as written by `delf-jax fit-localizer`.
        layer: where none is given, fit one on this layer.
        model: and on this model.
        protocol: how photos are shown: squashed to 480 and cropped to 448 (fine-grained), 256 and 224 (imagenet), or
            wsolevaluation's 224.
        validation: choose the map threshold on so many photos held out of the training split; with 0 it is the best on
            the test photos themselves, which is labelled oracle.
        json: print one JSON line per method.
    """

    what: Annotated[Positional[Literal["localization"]], arg(metavar="localization")]
    data: Annotated[Positional[str], arg(metavar="DATA")]
    layout: Literal["auto", "cub", "voc", "coco", "imagenet", "yolo", "csv"] = "auto"
    predictor: Annotated[str | None, arg(help_behavior_hint="(default: fitted to the training split)")] = None
    layer: Literal["conv4", "conv5"] = "conv5"
    model: str = "delf-r50"
    protocol: Literal["fine-grained", "imagenet", "wsolevaluation"] = "fine-grained"
    validation: int = 0
    json: bool = False

    example: ClassVar[str] = "delf-jax evaluate localization CUB_200_2011/ --layout cub"

    def run(self, report: Report) -> None:
        """Fits if need be, localizes every test photo, and prints the table."""
        if self.validation < 0:
            raise UsageError(f"--validation is {self.validation}; it must be at least 0")
        from delf_jax.command import environment

        environment.start_jax()
        from localization import datasets, evaluation

        photos = datasets.read(self.data, layout=None if self.layout == "auto" else self.layout)
        protocol = {
            "fine-grained": evaluation.OFFICIAL_FINE_GRAINED,
            "imagenet": evaluation.OFFICIAL_IMAGENET,
            "wsolevaluation": evaluation.WSOLEVALUATION,
        }[self.protocol]
        fitting, validation, test = _split(photos, self.validation, self.data)
        with report.progress("fitting"):
            predictor = self._predictor(fitting, protocol)
        with report.progress("evaluating"):
            chosen = evaluation.evaluate(predictor, validation, protocol=protocol) if validation else None
            measured = evaluation.evaluate(predictor, test, protocol=protocol)
        for error in measured.failed:
            report.failure("image", error.source, error.reason)
        report.succeeded += len(measured.areas)
        rows = [_row(m.method, measured, chosen, predictor, self.protocol) for m in measured.methods]
        if self.json:
            for row in rows:
                report.result({"data": self.data, "photos": len(measured.areas), "protocol": self.protocol} | row, "")
        else:
            report.result({}, self._table(rows, measured, chosen, predictor))

    def _predictor(self, photos: Sequence["Photo"], protocol: "CropProtocol") -> "localization.Predictor":
        import localization

        if self.predictor is not None:
            return localization.Predictor.open(self.predictor)
        from delf_jax import loading
        from delf_jax.head import Head
        from localization import evaluation

        labels = {str(photo.path): photo.label for photo in photos if photo.label is not None}
        extractor = loading.load(self.model, head=Head(), scorer="norm", max_side=protocol.crop)
        return localization.fit(
            evaluation.Squashed(photos, side=evaluation.FIT_SIDE),
            encoder=localization.ExtractorEncoder(extractor, layer=self.layer),
            labels=labels or None,
            max_points=0,
        )

    def _table(
        self,
        rows: Sequence[dict[str, Any]],
        measured: "Evaluation",
        chosen: "Evaluation | None",
        predictor: "localization.Predictor",
    ) -> str:
        source = f"chosen on {len(chosen.areas)} held-out photos" if chosen else "oracle: the best on these photos"
        encoder = predictor.statistics.encoder
        lines = [
            f"{self.data}: {len(measured.areas)} photos, protocol {self.protocol}, {encoder.get('layer', 'features')}, "
            f"w* of {predictor.statistics.photos} photos",
            f"map threshold: {source}; the predictor's own is {predictor.map_threshold:g}",
            "",
            f"{'':24}GT-Known  threshold  own threshold   Top-1   Top-5  small  middle  large",
        ]
        for row in rows:
            cells = [
                f"{_SHOWN[row['method']]:24}{row['gt_known']:8.1%}",
                f"{row['threshold']:9.2f}" if row["threshold"] is not None else " " * 9,
                f"{row['gt_known_own_threshold']:13.1%}",
                *(f"{row[name]:6.1%}" if row[name] is not None else f"{'-':>6}" for name in ("top1", "top5")),
                " ".join(f"{share:6.1%}" for share in row["by_area"]),
            ]
            lines.append("  ".join(cells))
        return "\n".join(lines)


def _split(photos: Sequence["Photo"], validation: int, name: str) -> tuple[list["Photo"], list["Photo"], list["Photo"]]:
    """Photos to fit on, to choose the threshold on, and to test on."""
    boxed = [photo for photo in photos if photo.boxes]
    if not boxed:
        raise UsageError(f"{name}: none of its {len(photos)} photos has a true box; check the folder and --layout")
    train = [photo for photo in photos if photo.train]
    test = [photo for photo in boxed if not photo.train]
    if not train or not test:
        train, test = list(photos), boxed
    held_out = [photo for photo in train if photo.boxes]
    if validation >= len(held_out):
        raise UsageError(f"--validation is {validation}, but only {len(held_out)} photos can be held out; take fewer")
    chosen = held_out[:: max(1, len(held_out) // validation)][:validation] if validation else []
    paths = {photo.path for photo in chosen}
    return [p for p in train if p.path not in paths], chosen, [p for p in test if p.path not in paths]


def _row(
    method: str,
    measured: "Evaluation",
    chosen: "Evaluation | None",
    predictor: "localization.Predictor",
    protocol: str,
) -> dict[str, Any]:
    from localization.metrics import max_box_acc_v2

    curve = measured.curve(method)
    _, threshold = (chosen or measured).curve(method).best()
    fixed = method == "centre"
    classes = bool(measured.predicted)
    return {
        "method": method,
        "gt_known": curve.at(threshold),
        "threshold": None if fixed else threshold,
        "threshold_from": None if fixed else "validation" if chosen else "oracle",
        "gt_known_own_threshold": curve.at(predictor.map_threshold),
        "own_threshold": None if fixed else predictor.map_threshold,
        "top1": measured.top_k_curve(method, 1).at(threshold) if classes else None,
        "top5": measured.top_k_curve(method, 5).at(threshold) if classes else None,
        "max_box_acc_v2": max_box_acc_v2(
            curve, convention="wsolevaluation" if protocol == "wsolevaluation" else "official"
        ),
        "by_area": measured.by_area(method, threshold),
    }
