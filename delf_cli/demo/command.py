"""`delf-jax demo`: search and localization on the packaged photos, with one page of pictures."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import arg

from delf_cli.options import ExtractionOptions
from delf_cli.report import Report

if TYPE_CHECKING:
    from delf_cli.demo.story import Query, Story


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Show search and localization on the packaged photos: matches with proof, refused photos, located objects.

    It needs no network. It writes pictures and one page, index.html, which holds everything and can be sent as it is.

    Attributes:
        out: folder for the page and the pictures.
        json: print one JSON line per query.
    """

    out: Annotated[str, arg(metavar="DIR")] = "demo_out"
    extraction: ExtractionOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax demo --out demo_out"

    def run(self, report: Report) -> None:
        """Computes the demo, writes its files, and prints the results."""
        folder = Path(self.out)
        folder.mkdir(parents=True, exist_ok=True)
        from delf_cli.demo import page
        from delf_cli.demo.compute import compute_story
        from delf_jax.files import atomic

        story, pictures = compute_story(self.extraction, report)

        for name, data in pictures.items():
            atomic.write_bytes(folder / name, data)
        address = folder / "index.html"
        atomic.write_bytes(address, page.render(story).encode())
        report.succeeded += len(story.queries)
        if self.json:
            for query in story.queries:
                report.result(_record(query), "")
        else:
            _print_table(story)
            report.note(f"page: {address.resolve().as_uri()}")


def _record(query: "Query") -> dict[str, Any]:
    results = [
        {"image": c.name, "inliers": c.inliers, "log10_nfa": c.log10_nfa, "accepted": c.accepted, "score": c.score}
        for c in query.candidates
    ]
    return {"query": query.name, "accepted": query.accepted, "results": results}


def _print_table(story: "Story") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("query", "left"), ("best candidate", "left"), ("inliers", "right"), ("log10 NFA", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    table.add_column("verdict")
    groups = [[query for query, _ in story.partnered], [*story.strangers, *story.members]]
    for group in groups:
        for query in group:
            best = query.candidates[0] if query.candidates else None
            verdict = "[green]accepted[/]" if query.accepted else "[red]refused[/]"
            numbers = (best.name, str(best.inliers), f"{best.log10_nfa:.1f}") if best else ("none", "", "")
            table.add_row(query.name, *numbers, verdict)
        table.add_section()
    console = Console()
    console.print(table)
    console.print(
        f"\n{story.found} of {len(story.partnered)} partners ranked first and accepted, {story.refused} of "
        f"{len(story.strangers) + len(story.members)} photos without a partner refused; "
        f"{sum(step.seconds for step in story.steps):.0f} s.",
        highlight=False,
    )
