"""The long run: ``python -m tests.soak [FAULT...] [--add] [--out FILE.json] [--docs FILE.md]``.

The table in ``docs/reliability.md`` is made by ``python -m tests.soak --out benchmarks/results/reliability.json --docs
docs/reliability.md``; without faults to bring about (``none``) it is only written anew. With ``--add`` a long run can
be done in pieces, each with a ``--seed`` of its own.
"""

import argparse
import json
import random
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from tests.soak import faults, ray_faults


def main() -> int:
    """Brings about the faults; the exit code is 1 where a row was lost, doubled or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    known = faults.FAULTS | ray_faults.FAULTS
    parser.add_argument("faults", nargs="*", default=list(known), help=", ".join(known))
    parser.add_argument("--times", type=int, help="(default: as the table has it)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON file in which the lines of these faults are replaced")
    parser.add_argument("--add", action="store_true", help="add to these lines instead")
    parser.add_argument("--docs", help="Markdown file whose table is replaced by what --out holds")
    options = parser.parse_args()
    bad = False
    for name in [name for name in options.faults if name != "none"]:
        bring_about, times = known[name]
        with tempfile.TemporaryDirectory() as folder:
            line = bring_about(options.times or times, Path(folder), random.Random(options.seed)).to_json()
        print(json.dumps(line), flush=True)
        bad |= any(line[kind] for kind in ("rows_lost", "rows_doubled", "rows_wrong"))
        if options.out:
            path = Path(options.out)
            lines = json.loads(path.read_bytes()) if path.exists() else {}
            if options.add and name in lines:
                line = added(lines[name], line)
            lines[name] = line
            path.write_text(written({fault: lines[fault] for fault in known if fault in lines}))
    if options.docs:
        page = Path(options.docs)
        lines = json.loads(Path(options.out).read_bytes())
        text = re.sub(r"(?<=\n)\| fault \|.*?\n(?!\|)", lambda _: table(lines), page.read_text(), flags=re.DOTALL)
        page.write_text(text)
    return int(bad)


def added(before: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    """Two lines of one fault as one."""
    sums = {key: before[key] + line[key] for key in line if key not in ("fault", "notes")}
    return line | sums | {"notes": dict(Counter(before["notes"]) + Counter(line["notes"]))}


def written(lines: dict[str, dict[str, Any]]) -> str:
    """The lines as JSON, each of them in one line."""
    return "{\n" + ",\n".join(f'"{name}": {json.dumps(line)}' for name, line in lines.items()) + "\n}\n"


def table(lines: dict[str, dict[str, Any]]) -> str:
    """The lines as Markdown, in the order of the faults."""
    heads = (
        "fault",
        "times tried",
        "rows lost",
        "rows doubled",
        "rows wrong",
        "time to recover, median (worst)",
        "held each time",
    )
    rows = [heads, ("---",) * len(heads)]
    for line in lines.values():
        seconds = line["recovery_seconds"]
        time = f"{median(seconds):.1f} s ({max(seconds):.1f} s)" if seconds else "nothing to do"
        notes = "; ".join(f"{note}: {count}" for note, count in line["notes"].items())
        counts = (line[key] for key in ("tried", "rows_lost", "rows_doubled", "rows_wrong"))
        rows.append((line["fault"], *map(str, counts), time, notes))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
