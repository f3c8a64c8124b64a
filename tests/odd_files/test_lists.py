"""Lists of pairs, of classes and of benchmarks as Windows and spreadsheets write them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from delf_cli import labels
from delf_cli.options import UsageError
from delf_jax.errors import DelfError
from delf_jax.files.text_files import read_lines, read_table
from delf_jax.interchange.pairs import read_pairs
from delf_jax.training import landmark_lists
from retrieval.evaluation import datasets


def pairs(file: Path) -> object:
    return read_pairs(str(file), names=["a.jpg", "b.jpg"])


def classes(file: Path) -> object:
    return labels.of_photos(str(file), [str(file.with_name("a.jpg"))], [], None)  # type: ignore[arg-type]


def landmarks(file: Path) -> object:
    file.with_name("abc.jpg").touch()
    found = landmark_lists.from_csv(file, file.parent)
    return found.names, found.classes


def google_landmarks(file: Path) -> object:
    (file.parent / "index").mkdir()
    (file.parent / "index" / "aaaaaaaaaaaaaaaa.jpg").touch()
    return datasets.read("gldv2", file.parent).tasks[0].relevant


def oxford(file: Path) -> object:
    file.with_name("a.jpg").touch()
    for grade in ("good", "ok", "junk"):
        file.with_name(f"x_1_{grade}.txt").write_text("\ufeffa\n" if grade == "good" else "", encoding="utf-8")
    benchmark = datasets.read("oxford5k", file.parent)
    return benchmark.queries[0].box, benchmark.tasks[0].relevant


LISTS: dict[str, tuple[str, str, Callable[[Path], object], Callable[[Path], object]]] = {
    # name: (file, text, reader, right value)
    "pairs": ("pairs.txt", "a.jpg b.jpg\n", pairs, lambda root: [("a.jpg", "b.jpg")]),
    "classes": ("classes.csv", "file,label\na.jpg,x\n", classes, lambda root: {str(root / "a.jpg"): "x"}),
    "landmarks": ("list.csv", "id,url,landmark_id\nabc,u,7\n", landmarks, lambda root: (["abc.jpg"], ["7"])),
    "google landmarks": (
        "retrieval_solution_v2.1.csv",
        "id,images,Usage\nbbbbbbbbbbbbbbbb,aaaaaaaaaaaaaaaa,Public\n",
        google_landmarks,
        lambda root: (frozenset({0}),),
    ),
    "oxford": ("x_1_query.txt", "oxc1_a 1 2 3 4\n", oxford, lambda root: ((1, 2, 3, 4), (frozenset({0}),))),
}


FORMS = [(name, form) for name in LISTS for form in ("plain", "byte-order mark", "Windows", "spaces")]
FORMS.remove(("landmarks", "spaces"))  # Arrow reads these lists of millions of rows; the error names what it found


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_lists_of_other_programs(name: str, form: str, tmp_path: Path) -> None:
    file, text, read, right = LISTS[name]
    if form == "spaces":
        text = text.replace(",", ", ").replace("\n", " \n")
    data = {"byte-order mark": b"\xef\xbb\xbf"}.get(form, b"") + text.encode()
    (tmp_path / file).write_bytes(data.replace(b"\n", b"\r\n") if form == "Windows" else data)
    assert read(tmp_path / file) == right(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_pairs_that_powershell_wrote(encoding: str, tmp_path: Path) -> None:
    """UTF-16 is known by its mark; without one it is refused."""
    (tmp_path / "pairs.txt").write_text("a.jpg b.jpg\r\n", encoding=encoding, newline="")
    if encoding == "utf-16":
        assert pairs(tmp_path / "pairs.txt") == [("a.jpg", "b.jpg")]
    else:
        with pytest.raises(DelfError, match=r"pairs\.txt: line 1"):
            pairs(tmp_path / "pairs.txt")


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\u2028b\n\n c\x0bd \r\ne\rf", encoding="utf-8", newline="")
    assert read_lines(tmp_path / "a.txt") == [(1, "a\u2028b"), (3, "c\x0bd"), (4, "e"), (5, "f")]


def test_one_photo_of_two_classes(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("file,label\na.jpg,x\n./a.jpg,y\n")
    with pytest.raises(UsageError, match=r"classes\.csv: line 3, column label: \./a\.jpg has another label"):
        classes(tmp_path / "classes.csv")


def test_a_byte_order_mark_is_no_column_and_empty_cells_of_the_header_are_no_names(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(b"\xef\xbb\xbffile,label\nab\xff,x\n")
    with pytest.raises(DelfError, match=r"line 2, column 3: is not text"):
        read_lines(file)
    file.write_text("file,label,,\na.jpg,cat,,\n")
    assert [(line, row["file"], row["label"]) for line, row in read_table(file, ("file", "label"))] == [
        (2, "a.jpg", "cat")
    ]
