"""What the long runs came to: added up in a JSON file, from which the table of the documentation is made."""

import json
import re
from pathlib import Path
from typing import Any

COUNTED = ("inputs", "read", "refused", "finding", "seconds")


def add(file: Path, record: dict[str, Any]) -> None:
    """Adds the counts of one run to those of its reader and engine."""
    totals = json.loads(file.read_text()) if file.exists() else {}
    engines = totals.setdefault(record["reader"], {})
    before = engines.get(record["engine"], {})
    total = {name: round(before.get(name, 0) + record.get(name, 0), 1) for name in COUNTED}
    total["peak_mib"] = max(before.get("peak_mib", 0), record["peak_mib"])
    total["seeds"] = sorted({*before.get("seeds", ()), record["seed"]})
    engines[record["engine"]] = total
    lines = (f"{json.dumps(reader)}: {json.dumps(totals[reader], sort_keys=True)}" for reader in sorted(totals))
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_table(page: Path, file: Path) -> None:
    """Replaces the table of a Markdown page."""
    heads = ("reader", "mutated", "by coverage", "read", "refused", "mistakes, since mended", "most memory")
    rows: list[tuple[str, ...]] = [heads, ("---",) * len(heads)]
    sums = [0] * 5
    for reader, engines in json.loads(file.read_text()).items():
        inputs = [engines.get(engine, {}).get("inputs", 0) for engine in ("mutate", "atheris")]
        outcomes = [sum(counts[name] for counts in engines.values()) for name in ("read", "refused", "finding")]
        memory = max(counts["peak_mib"] for counts in engines.values())
        rows.append((reader, *map(_spaced, inputs + outcomes), f"{memory} MiB"))
        sums = [before + count for before, count in zip(sums, inputs + outcomes)]
    rows.append(("**in all**", *map(_spaced, sums), ""))
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    text = re.sub(r"(?<=\n)\| reader \|.*?\n(?!\|)", lambda _: table, page.read_text(), flags=re.DOTALL)
    page.write_text(text)


def _spaced(count: float) -> str:
    return f"{int(count):,}".replace(",", " ")
