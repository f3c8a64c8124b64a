"""Every fault once or a few times; ``python -m tests.soak`` brings them about over and over."""

import random
from pathlib import Path

import pytest

from tests.soak import faults

TIMES = {
    **{"kill": 3, "two": 1, "full": 1, "readonly": 1, "objects": 2, "clock": 2, "parts": 3, "index": 3, "small": 3},
    **{"changers": 3, "changers_of_shards": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", faults.FAULTS)
def test_no_fault_costs_a_row(name: str, tmp_path: Path) -> None:
    try:
        tally = faults.FAULTS[name][0](TIMES[name], tmp_path, random.Random(0))
    except PermissionError:
        pytest.skip("this user may not mount a small disk")
    # An object store that fails at random may well serve one of the jobs without a fault.
    assert tally.tried >= (1 if name == "objects" else TIMES[name])
    assert (tally.lost, tally.doubled, tally.wrong) == (0, 0, 0)
    for note in (
        "one refused",
        "said in one line",
        "named",
        "the rest is usable",
        "never half",
        "repaired with all rows",
    ):
        if note in tally.notes:
            assert tally.notes[note] == tally.tried, tally.notes
