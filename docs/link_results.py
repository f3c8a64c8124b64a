"""Hook of MkDocs: the files of ``benchmarks/results`` that pages link to become part of the site.

In the repository the links lead to ``../benchmarks/results``, which is outside of what MkDocs copies.
"""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


def on_files(files: Files, config: Any) -> Files:
    """Adds the results to the files of the site."""
    for path in sorted(RESULTS.rglob("*.*")):
        name = f"results/{path.relative_to(RESULTS).as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Points the links of a page at them."""
    return markdown.replace("](../benchmarks/results/", "](results/")
