"""`delf-jax evaluate groups`: how well groups agree with known names of the photos."""

import dataclasses
import os
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from delf_cli import group, labels
from delf_cli.options import UsageError
from delf_cli.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateGroups:
    """Compare groups of photos with known names: photos of one name belong together.

    Precision is the share of right pairs among those in one group, recall the share of the right pairs that are in one
    group. B-cubed counts photos in place of pairs, so that large groups count less. Photos without a name are left out.

    Attributes:
        groups: folder that `delf-jax group` wrote, or a CSV file with the columns file and group; group is empty for a
            photo alone.
        labels: folders takes the name of each photo's folder; a CSV file has the columns file and label.
        json: print one JSON line per name, and one for all.
    """

    groups: Annotated[Positional[str], arg(metavar="GROUPS")]
    labels: Annotated[str, arg(metavar="folders|FILE")]
    json: bool = False

    example: ClassVar[str] = "delf-jax evaluate groups groups --labels names.csv"

    def run(self, report: Report) -> None:
        """Prints the scores of every name, and those of all photos."""
        if self.labels == "none":
            raise UsageError("--labels is 'none'; give folders or a CSV file with columns file,label")
        labels.check(self.labels, clusters=False)
        from delf_jax.files.text_files import read_table
        from retrieval.grouping.measures import group_scores

        file = os.path.join(self.groups, group.TABLE) if os.path.isdir(self.groups) else self.groups
        found = {row["file"]: row["group"] for _, row in read_table(file, ("file", "group"))}
        truth = labels.given(self.labels, list(found))
        marks = {name: mark for name, mark in found.items() if mark}
        for label in sorted(set(truth.values())):
            mine = {name: each for name, each in truth.items() if each == label}
            scores = group_scores(marks, mine)
            report.result(
                {"label": label, "photos": len(mine), "recall": scores.recall, "b_cubed_recall": scores.b_cubed_recall},
                f"{label}: {len(mine)} photos, recall {_percent(scores.recall)}",
            )
        scores = group_scores(marks, truth)
        report.succeeded += len(truth)
        report.result(
            {"photos": len(truth), **scores._asdict()},
            f"{len(truth)} photos: pairs {_percent(scores.precision)} precision, {_percent(scores.recall)} recall; "
            f"B-cubed {_percent(scores.b_cubed_precision)} precision, {_percent(scores.b_cubed_recall)} recall",
        )


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.1f} %"
