"""Names as people type them."""

from pathlib import Path

import pytest

from delf_jax.errors import DelfError
from delf_jax.photos.meant import photo_meant

HERE = "/home/me"
NAMES = {
    "/home/me/photos/x.png",
    "/home/you/x.png",
    "/home/me/lp.tar::cat/1.jpg",
    "s3://bucket/x.png",
    "both.png",
    "/home/me/both.png",
    "holiday",
    "/home/me/a%20b.png",
}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("/home/me/photos/x.png", "/home/me/photos/x.png"),
        ("photos/x.png", "/home/me/photos/x.png"),
        ("./photos/../photos//x.png", "/home/me/photos/x.png"),
        ("../you/x.png", "/home/you/x.png"),
        ("file:///home/you/x.png", "/home/you/x.png"),
        ("lp.tar::cat/1.jpg", "/home/me/lp.tar::cat/1.jpg"),
        ("s3://bucket/x.png", "s3://bucket/x.png"),
        ("holiday", "holiday"),
        ("/home/me/holiday", "holiday"),
        ("both.png", "both.png"),
        ("a%20b.png", "/home/me/a%20b.png"),
    ],
)
def test_a_photo_is_found_under_every_name_that_people_give_it(
    typed: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getcwd", lambda: HERE)
    assert photo_meant(typed, NAMES) == meant


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("./both.png", "./both.png: may be /home/me/both.png or both.png; give one of them, as it is written here"),
        ("x.png", "did you mean /home/me/photos/x.png or /home/you/x.png or s3://bucket/x.png?"),
        ("s3://other/x.png", "s3://other/x.png: is not there; did you mean /home/me/photos/x.png"),
        ("y.png", "y.png: is not there; give the path under which it was extracted"),
        ("ng", "give the path under which it was extracted"),
    ],
)
def test_what_may_be_meant_is_listed(typed: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.getcwd", lambda: HERE)
    with pytest.raises(DelfError) as refused:
        photo_meant(typed, NAMES)
    assert said in str(refused.value)
