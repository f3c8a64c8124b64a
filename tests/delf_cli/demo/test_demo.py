"""The demo: the whole story on the packaged photos, as `make demo` tells it."""

import json
import re
from pathlib import Path

import pytest

from delf_cli.demo.compute import LOCATED, PARTNERS, STRANGERS
from delf_cli.main import main
from tests.tiny_model import write_tiny_model

OPTIONS = ("--max-side", "192", "--scales", "1.0", "--max-features", "100")


def test_it_writes_pictures_and_a_page_and_prints_a_table(
    tmp_path: Path, demo_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_tiny_model(tmp_path / "model")
    assert main(["demo", "--out", str(tmp_path / "a" / "b"), "--model", str(model), *OPTIONS]) == 0
    output = capsys.readouterr()
    assert output.err.startswith("Load the model\nExtract features: ")
    for name in (*PARTNERS, *STRANGERS):
        assert name in output.out
        for kind in ("attention", "features"):
            assert (tmp_path / "a" / "b" / f"{name}_{kind}.jpg").stat().st_size
    for name in LOCATED:
        assert (tmp_path / "a" / "b" / f"{name}_located.jpg").stat().st_size
    page = tmp_path / "a" / "b" / "index.html"
    assert page.as_uri() in output.err
    assert page.read_text().count("<article") == len(PARTNERS) + len(STRANGERS)


@pytest.mark.slow
@pytest.mark.usefixtures("full_compilation", "few_canvases")
def test_every_partner_is_first_and_every_stranger_refused(
    tmp_path: Path, demo_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path), "--json"]) == 0
    answers = {record["query"]: record for record in map(json.loads, capsys.readouterr().out.splitlines())}
    for query, partner in PARTNERS.items():
        # The surest wrong answer that the calibration knows is surer than this right one (log10 NFA -3.8).
        assert answers[query]["accepted"] == (query != "aero3"), query
        assert answers[query]["results"][0]["image"] == partner
        assert answers[query]["results"][0]["accepted"] == answers[query]["accepted"]
    singles = {path.stem for path in demo_photos.glob("*.jpg")} - {*PARTNERS, *PARTNERS.values()}
    assert set(answers) == singles | set(PARTNERS)
    assert [query for query in singles if answers[query]["accepted"]] == []
    page = (tmp_path / "index.html").read_text()
    groups = page.split('id="groups"')[1].split("</section>")[0]
    # All partners are grouped but the pair that is refused above, and nothing else is.
    found = re.findall("<figcaption>(.*?)</figcaption>", groups)
    assert set(found) == {*PARTNERS, *PARTNERS.values()} - {"aero1", "aero3"}
    assert groups.count("<h4>") == 5
