"""Classes of photos for `fit-localizer --labels`: from their folders, from a CSV file, or found by clustering."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from delf_cli.options import UsageError

if TYPE_CHECKING:
    import localization.encoders.base

_CLUSTER = "cluster:"


def check(rule: str) -> None:
    """Raises UsageError unless ``rule`` is one that ``of_photos`` can follow."""
    if rule in ("none", "folders"):
        return
    if rule.startswith(_CLUSTER):
        if not rule.removeprefix(_CLUSTER).isdecimal() or _clusters(rule) < 2:
            raise UsageError(f"--labels is {rule!r}; give the number of clusters, 2 or more, as in cluster:5")
    elif not os.path.isfile(rule):
        raise UsageError(f"--labels is {rule!r}; give folders, cluster:NUMBER, or a CSV file with columns file,label")


def of_photos(
    rule: str, paths: Sequence[str], photos: Iterable[str], encoder: "localization.encoders.base.Encoder"
) -> Mapping[str, str] | None:
    """The class of each photo by its path; None for the rule ``none``. Photos without a class are left out.

    Args:
        rule: ``none``, ``folders`` (the folder a photo lies in), ``cluster:NUMBER``, or a CSV file.
        paths: of the photos.
        photos: the same, as clustering reads them: it computes the features of each.

    Raises:
        UsageError: none of the photos has a class.
        PredictorError: fewer photos than clusters.
    """
    if rule == "none":
        return None
    if rule == "folders":
        return {path: os.path.basename(os.path.dirname(path)) for path in paths}
    if rule.startswith(_CLUSTER):
        from localization.foreground import classes

        # Photos that cannot be read are told when they fail to be fitted.
        means = classes.mean_features(photos, encoder=encoder, on_error=lambda error: None)
        return classes.cluster(means, _clusters(rule))
    known = _read(rule)
    labels = {path: known[path] for path in paths if path in known}
    if not labels:
        raise UsageError(f"{rule}: it has a label for none of the photos; its files are taken relative to its folder")
    return labels


def _clusters(rule: str) -> int:
    return int(rule.removeprefix(_CLUSTER))


def _read(file: str) -> dict[str, str]:
    folder = os.path.dirname(os.path.abspath(file))
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            if not {"file", "label"} <= set(rows.fieldnames or ()):
                raise UsageError(f"{file}: its first line has to name the columns file,label")
            given = [(row["file"], row["label"]) for row in rows if row["file"] and row["label"]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not a readable CSV file ({error}); give columns file,label") from error
    return {name if "://" in name else os.path.normpath(os.path.join(folder, name)): label for name, label in given}
