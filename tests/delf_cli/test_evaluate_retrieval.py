"""evaluate retrieval from miniatures of the published folders, of packaged photos: those in another light are right."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from delf_cli.main import main
from tests.delf_cli.conftest import Run

pytestmark = pytest.mark.usefixtures("few_canvases")

QUERIES = ("graf1", "coffee")
OTHERS = ("box", "chelsea", "camera")


@pytest.fixture(scope="module")
def options(tiny_model: Path) -> tuple[str, ...]:
    return ("--model", str(tiny_model), "--max-side", "256", "--max-features", "200", "--scales", "1.0")


def seen(photo: np.ndarray, brightness: float) -> np.ndarray:
    """The same in another light, so that even a random network knows it again."""
    return np.clip(photo * brightness, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def roxford(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path) -> Path:
    """Two queries in boxes; of each an easy photo, a hard and a junk one, and three photos of other things."""
    root = tmp_path_factory.mktemp("roxford5k")
    (root / "jpg").mkdir()
    names: list[str] = []
    rows = []
    for number, name in enumerate(QUERIES):
        photo = cv2.imread(str(demo_photos / f"{name}.jpg"))
        height, width = photo.shape[:2]
        cv2.imwrite(str(root / "jpg" / f"query_{number:06d}.jpg"), photo)
        for grade, brightness in {"easy": 0.95, "hard": 0.8, "junk": 0.9}.items():
            names.append(f"{name}_{grade}")
            cv2.imwrite(str(root / "jpg" / f"{names[-1]}.jpg"), seen(photo, brightness))
        places = {grade: [3 * number + i] for i, grade in enumerate(("easy", "hard", "junk"))}
        rows.append({"bbx": [0.0, 0.2, width * (0.75 + 0.25 * number), float(height)], **places})
    for name in OTHERS:
        names.append(name)
        cv2.imwrite(str(root / "jpg" / f"{name}.jpg"), cv2.imread(str(demo_photos / f"{name}.jpg")))
    truth = {"imlist": names, "qimlist": [f"query_{i:06d}" for i in range(len(QUERIES))], "gnd": rows}
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth, 2))
    return root


@pytest.fixture(scope="module")
def features(roxford: Path, options: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that the first evaluation made."""
    store = tmp_path_factory.mktemp("stores") / "roxford"
    arguments = ["evaluate", "retrieval", str(roxford), "--dataset", "roxford5k", "--features", str(store), *options]
    assert main([*arguments, "--backend", "exact"]) == 0
    return store


def test_revisited_oxford(run: Run, roxford: Path, features: Path, options: tuple[str, ...]) -> None:
    """The query in another light comes first, whatever the network: every task is solved once junk is out."""
    done = run(
        "evaluate", "retrieval", roxford, "--dataset", "roxford5k", "--features", features, "--backend", "exact",
        "--json",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert [row["task"] for row in done.records] == ["Easy", "Medium", "Hard"]
    for row in done.records:
        assert (row["queries"], row["photos"], row["first_stage"], row["verify"]) == (2, 9, "votes", 100)
        assert row["map"] == row["precision_at_1"] == row["top1"] == row["gap"] == 1
        assert row["kentucky"] is None
    shown = run("evaluate", "retrieval", roxford, "--dataset", "roxford5k", "--features", features, "--verify", "0")
    assert shown.out.splitlines()[0] == "roxford5k Easy: mAP 100.00, mP@1 100.0, mP@5 100.0, mP@10 100.0 (2 queries)"


@pytest.mark.slow
def test_the_packaged_model_finds_turned_and_smaller_photos(run: Run, demo_photos: Path, tmp_path: Path) -> None:
    """Holidays' layout; three things, each turned and each nearer, found by votes and by words."""
    for group, name in enumerate(("coffee", "box", "camera")):
        photo = cv2.imread(str(demo_photos / f"{name}.jpg"))
        photo = cv2.resize(photo, (320, 256), interpolation=cv2.INTER_AREA)
        turn = cv2.getRotationMatrix2D((160, 128), 12, 0.85)
        turned = cv2.warpAffine(photo, turn, (320, 256), borderMode=cv2.BORDER_REFLECT)
        for place, view in enumerate((photo, turned, cv2.resize(photo[20:236, 30:290], (320, 256)))):
            cv2.imwrite(str(tmp_path / f"1{group:03d}{place:02d}.png"), view)
    store, words = tmp_path / "features", tmp_path / "words"
    evaluated = ("evaluate", "retrieval", tmp_path, "--dataset", "holidays", "--features", store, "--json")
    asked = (*evaluated, "--backend", "exact", "--max-side", "320", "--scales", "1.0", "--verify", "0")
    (votes,) = run(*asked).records
    assert (votes["queries"], votes["photos"]) == (3, 9)
    assert votes["map"] == 1
    assert run("codebook", store, "--out", words, "--words", "64").code == 0
    (kernel,) = run(*asked, "--first-stage", "asmk", "--codebook", words).records
    assert kernel["map"] > 0.7


def test_distractors_come_between_if_they_are_alike(
    run: Run, roxford: Path, features: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    """A copy of each query in a shard of distractors takes the first place; as a store and as an index."""
    shard, index = tmp_path / "shard", tmp_path / "index"
    copies = sorted(str(path) for path in (roxford / "jpg").glob("query_*.jpg"))
    assert run("extract", *copies, "--out", shard, *options).code == 0
    assert run("index", shard, "--out", index, "--backend", "exact").code == 0
    evaluated = ("evaluate", "retrieval", roxford, "--dataset", "roxford5k", "--features", features, "--json")
    for places in ([shard], [index], [shard, index]):
        rows = run(*evaluated, "--backend", "exact", "--verify", "5", "--distractors", *places).records
        assert rows[0]["top1"] == 0
        # Right at rank 1 + d: precision 0 before and 1 / (1 + d) at it.
        assert rows[0]["map"] == pytest.approx(1 / (1 + len(places)) / 2)


@pytest.mark.slow
def test_asmk_with_regions(
    run: Run, roxford: Path, features: Path, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    """The codebook is of other photos, the predictor too; ASMK*, ASMK, and R-ASMK* with boxes of the predictor."""
    codebook, predictor = tmp_path / "codebook", tmp_path / "predictor"
    made = run("codebook", features, "--out", codebook, "--words", "64", "--json")
    assert (made.code, made.records[0]["words"], made.records[0]["dimension"]) == (0, 64, 16)
    fitted = run(
        "fit-localizer", photos, "--out", predictor, "--model", tiny_model, "--layer", "conv4", "--no-points",
        "--max-side", "224",
    )  # fmt: skip
    assert fitted.code == 0
    evaluated = (
        "evaluate", "retrieval", roxford, "--dataset", "roxford5k", "--features", features, "--backend", "exact",
        "--first-stage", "asmk", "--codebook", codebook, "--json",
    )  # fmt: skip
    found = {}
    for name, more in {
        "binary": (),
        "float": ("--kernel", "float", "--idf", "--assignments", "3"),
        "verified": ("--verify", "5"),
        "regions": ("--regions", predictor),
    }.items():
        verify = () if name == "verified" else ("--verify", "0")
        done = run(*evaluated, *verify, *more)
        assert (done.code, done.err) == (0, "")
        found[name] = done.records[0]
        assert found[name]["first_stage"] == "asmk"
        assert found[name]["top1"] == 1
    assert found["verified"]["map"] == 1


def test_index_and_search_word_by_word(run: Run, store: Path, photos: Path, tmp_path: Path) -> None:
    codebook, index = tmp_path / "codebook", tmp_path / "index"
    assert run("codebook", store, "--out", codebook, "--words", "32").code == 0
    made = run("index", store, "--out", index, "--backend", "exact", "--asmk", codebook, "--json")
    assert made.records[0]["words"] == 32
    (found,) = run("search", index, photos / "box.jpg", "--first-stage", "asmk", "--top", "1", "--json").records
    assert found["results"][0]["image"] == str(photos / "box.jpg")
    # The store keeps float16: bits of residuals near zero may differ from the query's.
    assert 0.7 < found["results"][0]["score"] <= 1
    plain = tmp_path / "plain"
    assert run("index", store, "--out", plain, "--backend", "exact").code == 0
    refused = run("search", plain, photos / "box.jpg", "--first-stage", "asmk")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--asmk" in refused.err
    assert run("index", "--out", plain, "--asmk", codebook).code == 0
    assert run("search", plain, photos / "box.jpg", "--first-stage", "asmk").code == 0


def test_holidays_ukbench_and_landmarks(run: Run, roxford: Path, options: tuple[str, ...], tmp_path: Path) -> None:
    """The other layouts, of the same photos."""
    jpg = roxford / "jpg"
    kinds = ("query_00000{}", "{}_easy", "{}_hard", "{}_junk")
    groups = [
        [jpg / f"{kind.format(number if kind.startswith('query') else name)}.jpg" for kind in kinds]
        for number, name in enumerate(QUERIES)
    ]
    for name in ("holidays", "ukbench", "gldv2"):
        (tmp_path / name).mkdir()
    truth = ["id,images,Usage"]
    for group, photos in enumerate(groups):
        ids = [f"{16 * group + place:016x}" for place in range(4)]
        truth.append(f"{ids[0]},{' '.join(ids[1:])},{'Public' if group else 'Private'}")
        for place, photo in enumerate(photos):
            (tmp_path / "holidays" / f"1{group:03d}{place:02d}.jpg").write_bytes(photo.read_bytes())
            (tmp_path / "ukbench" / f"ukbench{4 * group + place:05d}.jpg").write_bytes(photo.read_bytes())
            kind = tmp_path / "gldv2" / ("index" if place else "test") / "0/0/0"
            kind.mkdir(parents=True, exist_ok=True)
            (kind / f"{ids[place]}.jpg").write_bytes(photo.read_bytes())
    stranger = f"{99:016x}"
    (tmp_path / "gldv2/test/0/0/0" / f"{stranger}.jpg").write_bytes((jpg / "box.jpg").read_bytes())
    truth.append(f"{stranger},None,Ignored")
    (tmp_path / "gldv2" / "retrieval_solution_v2.1.csv").write_text("\n".join(truth))
    evaluated = (*options, "--backend", "exact")
    (row,) = run("evaluate", "retrieval", tmp_path / "holidays", "--dataset", "holidays", *evaluated, "--json").records
    assert (row["queries"], row["photos"], row["map"]) == (2, 8, 1)
    (row,) = run("evaluate", "retrieval", tmp_path / "ukbench", "--dataset", "ukbench", *evaluated, "--json").records
    assert (row["queries"], row["kentucky"]) == (8, 4)
    google = ("evaluate", "retrieval", tmp_path / "gldv2", "--dataset", "gldv2", *evaluated, "--strangers")
    rows = run(*google, "--json").records
    assert [(row["task"], row["queries"], row["map_at_100"]) for row in rows] == [("Public", 1, 1), ("Private", 1, 1)]
    assert [row["gap"] for row in rows] == [1, 1]
    assert "gldv2 Public: mAP@100 100.00, GAP 100.00, top-1 100.0 (1 queries)" in run(*google).out


def test_photos_that_cannot_be_read_are_listed(
    run: Run, roxford: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    for photo in (roxford / "jpg").iterdir():
        (tmp_path / photo.name).write_bytes(photo.read_bytes())
    (tmp_path / "gnd_roxford5k.pkl").write_bytes((roxford / "gnd_roxford5k.pkl").read_bytes())
    (tmp_path / "graf1_easy.jpg").write_bytes(b"no photo")
    (tmp_path / "query_000001.jpg").write_bytes(b"no photo")
    done = run("evaluate", "retrieval", tmp_path, "--dataset", "roxford5k", *options, "--backend", "exact", "--json")
    assert done.code == 1
    errors = [record for record in done.records if "error" in record]
    assert [Path(record.get("image", record.get("query"))).name for record in errors] == [
        "graf1_easy.jpg",
        "query_000001.jpg",
    ]
    easy, _, hard = [record for record in done.records if "task" in record]
    # Neither query finds its easy photo: one's is broken, the other is broken itself.
    assert (easy["map"], hard["map"]) == (0, 0.5)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--first-stage", "asmk"], "needs --codebook"),
        (["--idf"], "is for --first-stage asmk"),
        (["--regions", "predictor"], "is for --first-stage asmk"),
        (["--verify", "-1"], "at least 0"),
        (["--assignments", "0"], "at least 1"),
        (["--strangers"], "no queries without a right answer"),
        (["--dataset", "paris6k"], "no *_query.txt"),
        (["--distractors", "nowhere"], "no feature store"),
    ],
)
def test_wrong_usage_is_one_line(more: list[str], said: str, run: Run, roxford: Path, features: Path) -> None:
    done = run("evaluate", "retrieval", roxford, "--dataset", "roxford5k", "--features", features, *more)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err


def test_distractors_in_shards_are_refused_before_the_work(
    run: Run, roxford: Path, features: Path, store: Path, tmp_path: Path
) -> None:
    assert run("index", store, "--out", tmp_path / "sharded", "--shards", "2", "--backend", "exact").code == 0
    asked = ("evaluate", "retrieval", roxford, "--dataset", "roxford5k", "--features", features)
    done = run(*asked, "--distractors", tmp_path / "sharded")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "this index is in shards; give its feature store instead" in done.err


def test_codebooks_of_too_many_words(run: Run, store: Path, tmp_path: Path) -> None:
    for words, said in (("100000", "fewer words"), ("0", "at least 1"), ("2000000", "--sample")):
        done = run("codebook", store, "--out", tmp_path / "codebook", "--words", words)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert said in done.err
    assert not list(tmp_path.iterdir())
