"""`delf-jax group`: which photos of a collection show the same thing, with the proof of every pair."""

import csv
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from delf_cli import labels
from delf_cli.options import UsageError
from delf_cli.report import Report

if TYPE_CHECKING:
    import retrieval
    import retrieval.grouping.groups
    import retrieval.grouping.labels

GROUPS, TABLE, PAIRS, PAGE, LOG = "groups.jsonl", "groups.csv", "pairs.txt", "index.html", "verified.jsonl"
# Of a feature store: its index, and the digest of what the index was built of.
INDEX, INDEXED = "index", "index.sha256"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Find the photos of a collection that show the same thing: groups, each with its proof.

    A pair of photos is accepted if chance hardly explains it, counted over all pairs of the collection. One pair that
    is not sure does not join two groups. Copies of a photo are told from other views. The folder gets a page, the
    groups as JSON and CSV, and the pairs for hloc and COLMAP. A run that was stopped goes on; after photos were added
    to the index, the same command costs only what is new.

    Attributes:
        collection: an index, as written by `delf-jax index`, or a feature store.
        out: folder for index.html, groups.jsonl, groups.csv and pairs.txt, and for verified.jsonl, with which the
            next run goes on. The index of a feature store is kept there too.
        neighbours: number of photos that each photo is compared with, at most.
        labels: names to check: folders takes the name of each photo's folder; a CSV file has the columns file and
            label. Photos without a name get a proposal.
        page: draw the page, for which the photos are read.
        json: print one JSON line per group.
    """

    collection: Annotated[Positional[str], arg(metavar="INDEX")]
    out: Annotated[str, arg(metavar="DIR")]
    neighbours: int = 10
    labels: Annotated[str, arg(metavar="none|folders|FILE")] = "none"
    page: bool = True
    json: bool = False

    example: ClassVar[str] = "delf-jax group index --out groups"

    def run(self, report: Report) -> None:
        """Groups the photos, and writes the files."""
        if self.neighbours < 1:
            raise UsageError(f"--neighbours is {self.neighbours}; it must be at least 1")
        labels.check(self.labels, clusters=False)
        from delf_cli import environment

        environment.keep_memory()
        environment.start_jax()
        import retrieval
        from retrieval.grouping.labels import labelled, split_labels

        folder = Path(self.out)
        index = self._opened(folder, report)
        known = {} if self.labels == "none" else labels.given(self.labels, index.names)
        folder.mkdir(parents=True, exist_ok=True)
        with report.progress("comparing") as advance:
            found = retrieval.group(index, neighbours=self.neighbours, log=folder / LOG, advance=advance)
        named = [labelled(each.names, known) for each in found.groups]
        records = [_record(number, *each) for number, each in enumerate(zip(found.groups, named, strict=True), 1)]
        self._write(folder, found, records, report)
        if self.page:
            from delf_cli import group_page

            with report.progress("drawing", "groups") as advance:
                group_page.write(folder / PAGE, index, found, named, report, advance)
        report.succeeded += len(index)
        for record in records:
            report.result(record, _sentence(record))
        summary = self._summary(index, found)
        summary["split_labels"] = {label: [n + 1 for n in places] for label, places in split_labels(named).items()}
        report.result({"summary": summary}, _summary_lines(summary, folder))

    def _opened(self, folder: Path, report: Report) -> "retrieval.SearchableIndex":
        import retrieval
        from delf_jax.files import atomic
        from delf_jax.store.commit_log import COMMITS
        from delf_jax.store.reader import FeatureStore

        is_store = "://" in self.collection or os.path.isdir(os.path.join(self.collection, COMMITS))
        if not is_store:
            return retrieval.open_index(self.collection)
        store = FeatureStore.open(self.collection)
        if not len(store):
            raise UsageError(f"{self.collection}: it has no photos; extract some, then run the same command again")
        # ScaNN never builds the same index twice, so it is kept for the next run.
        content = sorted(
            [store.fingerprint, json.dumps(store.settings.to_json()), *map(" ".join, store.content_hashes().items())]
        )
        mark, digest = folder / INDEXED, hashlib.sha256("\n".join(content).encode()).hexdigest()
        if mark.exists() and mark.read_text() == digest:
            return retrieval.open_index(folder / INDEX)
        folder.mkdir(parents=True, exist_ok=True)
        report.note(f"{self.collection}: building an index of {len(store)} photos")
        index = retrieval.Index.build(store, out=folder / INDEX)
        atomic.write_bytes(mark, digest.encode())
        return index

    @staticmethod
    def _write(folder: Path, found: "retrieval.Grouping", records: list[dict[str, Any]], report: Report) -> None:
        from delf_jax.files import atomic
        from delf_jax.interchange.pairs import relative_names

        atomic.write_bytes(folder / GROUPS, "".join(json.dumps(record) + "\n" for record in records).encode())
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(("file", "group", "representative", "copy_of"))
        for number, each in enumerate(found.groups, 1):
            rows.writerows((m.name, number, each.representative, m.copy_of or "") for m in each.members)
        rows.writerows((name, "", "", "") for name in found.alone)
        atomic.write_bytes(folder / TABLE, table.getvalue().encode())
        place = {name: number for number, each in enumerate(found.groups) for name in each.names}
        names = relative_names(found.examined.names)
        pairs = [(a, b) for a, b in found.examined.likely if a in place and place[a] == place.get(b)]
        spaced = next((names[name] for name in place if any(map(str.isspace, names[name]))), None)
        if spaced is not None:
            report.note(f"{spaced}: hloc cannot read names with spaces; {PAIRS} is left out")
            return
        atomic.write_bytes(folder / PAIRS, "".join(f"{names[a]} {names[b]}\n" for a, b in pairs).encode())

    def _summary(self, index: "retrieval.SearchableIndex", found: "retrieval.Grouping") -> dict[str, Any]:
        return {
            "photos": len(index),
            "groups": len(found.groups),
            "grouped": len(index) - len(found.alone),
            "copies": sum(member.copy_of is not None for each in found.groups for member in each.members),
            "pairs": len(found.examined.likely),
            "verified": found.examined.verified,
            "guarantee": index.acceptance(0, verify=self.neighbours).guarantee,
        }


def _record(number: int, found: "retrieval.Group", named: "retrieval.grouping.labels.LabelledGroup") -> dict[str, Any]:
    return {
        "group": number,
        "representative": found.representative,
        "members": [
            {"file": member.name, "region": member.region.round(1).tolist(), "copy_of": member.copy_of}
            for member in found.members
        ],
        "edges": [
            {
                "a": edge.a,
                "b": edge.b,
                "inliers": edge.inliers,
                "log10_nfa": edge.log10_nfa,
                "limit": edge.limit,
                "copy": edge.copy,
                "transform": edge.transform.tolist(),
            }
            for edge in found.edges
        ],
        **dataclasses.asdict(named),
    }


def _sentence(record: Mapping[str, Any]) -> list[str]:
    members, edges = record["members"], record["edges"]
    lines = [
        f"group {record['group']}: {len(members)} photos, proved by {len(edges)} pair{'s' if len(edges) > 1 else ''} "
        f"of log10 NFA {edges[-1]['log10_nfa']:.1f} or less"
    ]
    if record["label"] is not None:
        right, all_named = record["votes"]
        lines[0] += f"; {right} of {all_named} are called {record['label']}"
    if record["merged"]:
        lines.append(f"  several names: {', '.join(record['merged'])}")
    for member in members:
        file = member["file"]
        words = [f"a copy of {member['copy_of']}"] if member["copy_of"] else []
        words += ["another name"] if file in record["disagreeing"] else []
        words += [f"no name; called {record['label']}?"] if record["label"] and file in record["unnamed"] else []
        lines.append(f"  {file}{': ' if words else ''}{'; '.join(words)}")
    return lines


def _summary_lines(summary: Mapping[str, Any], folder: Path) -> list[str]:
    lines = [
        f"{summary['grouped']} of {summary['photos']} photos are in {summary['groups']} groups, {summary['copies']} of "
        f"them copies of others; {summary['verified']} of {summary['pairs']} likely pairs were verified",
        f"limit of one query: {summary['guarantee']}; pairs of a collection have to be surer",
        f"written to {folder}",
    ]
    return lines + [f"several groups are called {label}: {places}" for label, places in summary["split_labels"].items()]
