"""The page's server: what it answers, refuses, forgets and never tells."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

httpx = pytest.importorskip("httpx", reason="needs delf-jax[web,browser]")
pytest.importorskip("uvicorn", reason="needs delf-jax[web,browser]")

from delf_cli import serve  # noqa: E402
from delf_cli.main import main  # noqa: E402
from delf_cli.web import api, app  # noqa: E402
from delf_cli.web.lru_cache import LruCache  # noqa: E402
from tests.conftest import ROOT  # noqa: E402
from tests.delf_cli.conftest import Run  # noqa: E402
from tests.delf_cli.web.conftest import Grouped  # noqa: E402
from tests.delf_cli.web.live_page import served  # noqa: E402


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    with httpx.Client(base_url=address, timeout=120) as client:
        yield client


def upload(client: Any, photo: Path) -> dict[str, Any]:
    answer = client.post("/api/photos", content=photo.read_bytes())
    assert answer.status_code == 201
    record: dict[str, Any] = answer.json()
    return record


def test_a_photo_of_the_index_is_found_with_its_proof(client: Any, photos: Path) -> None:
    photo = upload(client, photos / "graf1.jpg")
    assert (photo["width"], photo["height"]) == (800, 640)
    found = client.post(f"/api/photos/{photo['id']}/search", json={"box": None}).json()
    best = found["matches"][0]
    assert found["accepted"]
    assert (best["name"], best["accepted"]) == ("graf1.jpg", True)
    assert best["inliers"] == best["putative"] == found["features"]
    assert best["confidence"].startswith("accepted: chance does as well once in 10^")
    for address in (f"/api/searches/{found['id']}/0.jpg", f"/api/collection/{best['place']}.jpg"):
        picture = client.get(address)
        assert picture.headers["content-type"] == "image/jpeg"
        Image.open(io.BytesIO(picture.content)).load()
    assert client.get(f"/api/searches/{found['id']}/99.jpg").status_code == 404


def test_an_index_in_shards_is_searched_and_shown(store: Path, photos: Path, tmp_path: Path) -> None:
    assert main(["index", str(store), "--out", str(tmp_path / "index"), "--shards", "2", "--backend", "exact"]) == 0
    command = serve.Serve(index=str(tmp_path / "index"), extraction=serve.ExtractionOptions())
    with served(command._app()) as address, httpx.Client(base_url=address, timeout=120) as client:
        photo = upload(client, photos / "graf1.jpg")
        found = client.post(f"/api/photos/{photo['id']}/search", json={"box": None}).json()
        best = found["matches"][0]
        assert (best["name"], best["accepted"]) == ("graf1.jpg", True)
        for picture in (f"/api/searches/{found['id']}/0.jpg", f"/api/collection/{best['place']}.jpg"):
            assert client.get(picture).headers["content-type"] == "image/jpeg"


def test_groups_are_shown_with_their_proofs(grouped: Grouped) -> None:
    (written,) = (json.loads(line) for line in (grouped.groups / "groups.jsonl").read_text().splitlines())
    with httpx.Client(base_url=grouped.address, timeout=120) as client:
        assert client.get("/api/collection").json()["groups"] == 1
        found = client.get("/api/groups").json()
        assert found["alone"] == 1
        (shown,) = found["groups"]
        assert [one["name"] for one in shown["members"]] == [
            os.path.basename(one["file"]) for one in written["members"]
        ]
        assert sum(one["copy_of"] is not None for one in shown["members"]) == 1
        assert [pair["inliers"] for pair in shown["pairs"]] == [edge["inliers"] for edge in written["edges"]]
        picture = client.get("/api/groups/0/0.jpg")
        assert picture.headers["content-type"] == "image/jpeg"
        Image.open(io.BytesIO(picture.content)).load()
        for address in ("/api/groups/1/0.jpg", "/api/groups/0/99.jpg"):
            assert client.get(address).status_code == 404


def test_groups_that_are_not_of_the_index_are_one_line(run: Run, grouped: Grouped, tmp_path: Path) -> None:
    missing = run("serve", grouped.index, "--groups", tmp_path, "--port", "0")
    assert "write it with delf-jax group INDEX --out" in missing.err
    other = (grouped.groups / "groups.jsonl").read_text().replace("graf1.jpg", "gone.jpg")
    for text in (other, "{", "[]\n"):
        (tmp_path / "groups.jsonl").write_text(text)
        refused = run("serve", grouped.index, "--groups", tmp_path, "--port", "0")
        assert (refused.code, refused.out) == (missing.code, "")
        assert "write it again with delf-jax group" in refused.err
        assert refused.err.count("\n") == 1


def test_a_part_is_searched_alone(client: Any, photos: Path) -> None:
    photo = upload(client, photos / "graf1.jpg")
    search = f"/api/photos/{photo['id']}/search"
    whole = client.post(search, json={"box": None}).json()
    part = client.post(search, json={"box": [-50, 0, photo["width"] / 2, photo["height"]]}).json()
    assert part["features"] != whole["features"]
    edges = client.post(search, json={"box": [0, 0, photo["width"], photo["height"]]}).json()
    assert (edges["matches"][0]["name"], edges["accepted"]) == ("graf1.jpg", True)
    tiny = client.post(search, json={"box": [10, 10, 20, 300]})
    assert tiny.status_code == 422
    assert "too small" in tiny.json()["error"]


def test_an_even_photo_is_an_honest_nothing(client: Any) -> None:
    even = io.BytesIO()
    Image.new("RGB", (300, 200), "grey").save(even, "PNG")
    photo = client.post("/api/photos", content=even.getvalue()).json()
    found = client.post(f"/api/photos/{photo['id']}/search", json={}).json()
    assert not found["accepted"]
    assert found["guarantee"] == (
        "no bound known (not calibrated on strangers); random matches come to it once in 100 queries"
    )
    assert found["threshold"] == -2.0
    assert not any(match["accepted"] for match in found["matches"])


def test_localization_boxes_follow_the_threshold_and_places_are_explained(client: Any, photos: Path) -> None:
    photo = upload(client, photos / "box.jpg")
    located = client.post(f"/api/photos/{photo['id']}/localize", json={"label": None}).json()
    assert located["boxes"]

    def largest(threshold: float) -> float:
        answer = client.get(f"/api/maps/{located['id']}/boxes", params={"threshold": threshold}).json()
        x0, y0, x1, y1, _ = answer["boxes"][0]
        return float((x1 - x0) * (y1 - y0))

    assert largest(0.9) < largest(0.1)
    assert client.get(f"/api/maps/{located['id']}.jpg").headers["content-type"] == "image/jpeg"
    why = client.post(f"/api/photos/{photo['id']}/explain", json={"at": [20, 30]}).json()
    assert why["excitatory"]
    assert all(point["importance"] > 0 for point in why["excitatory"])
    assert all(point["importance"] < 0 for point in why["inhibitory"])
    assert why["excitatory"][0]["thumbnail"].startswith("data:image/jpeg;base64,")
    assert client.post(f"/api/photos/{photo['id']}/localize", json={"label": "cat"}).status_code == 422


def test_no_answer_tells_where_things_lie(client: Any, photos: Path) -> None:
    photo = upload(client, photos / "box.jpg")
    told = [
        client.get("/api/collection").text,
        client.post(f"/api/photos/{photo['id']}/search", json={}).text,
        client.post(f"/api/photos/{photo['id']}/explain", json={"at": [5, 5]}).text,
        client.post("/api/photos", content=b"no photo").text,
        client.get("/api/collection/99.jpg").text,
    ]
    assert not [text for text in told if str(photos) in text or photos.name in text]


def test_a_photo_whose_file_is_gone_is_found_without_picture(client: Any, photos: Path, tmp_path: Path) -> None:
    gone = photos / "chelsea.jpg"
    photo = upload(client, gone)
    away = gone.rename(tmp_path / "away.jpg")
    try:
        found = client.post(f"/api/photos/{photo['id']}/search", json={}).json()
        best = found["matches"][0]
        assert (best["name"], best["accepted"]) == ("chelsea.jpg", True)
        answers = [client.get(f"/api/searches/{found['id']}/0.jpg"), client.get(f"/api/collection/{best['place']}.jpg")]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert "moved or deleted" in answers[0].json()["error"]
    finally:
        away.rename(gone)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/api/photos", b"hello", 422, "not a photo of a known format"),
        ("/api/photos", b"", 422, "empty"),
        ("/api/photos/none/search", b"{}", 404, "no longer keeps"),
        ("/api/photos/none/explain", b'{"at": [1, 2]}', 404, "no longer keeps"),
    ],
)
def test_what_cannot_be_answered_is_told_in_a_sentence(
    client: Any, path: str, body: bytes, status: int, said: str
) -> None:
    answer = client.post(path, content=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_impossible_bodies_and_thresholds_are_refused(client: Any, photos: Path) -> None:
    photo = upload(client, photos / "box.jpg")
    for body in ("", "[]", "[" * 3000, '{"box": [1, 2]}', '{"box": ["a", 0, 50, 50]}'):
        assert client.post(f"/api/photos/{photo['id']}/search", content=body).status_code == 422, body
    located = client.post(f"/api/photos/{photo['id']}/localize", json={}).json()
    for threshold in ("", "x", "nan", "1", "-0.1"):
        answer = client.get(f"/api/maps/{located['id']}/boxes", params={"threshold": threshold})
        assert answer.status_code == 422, threshold


def test_too_large_uploads_are_refused_before_they_are_decoded(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_BYTES", 1 << 20)
    assert client.post("/api/photos", content=b"x" * ((1 << 20) + 1)).status_code == 413
    streamed = client.post("/api/photos", content=iter([b"x" * (1 << 20)] * 2))
    assert streamed.status_code == 413
    monkeypatch.setattr(api, "MAX_PIXELS", 1000)
    photo = io.BytesIO()
    Image.new("RGB", (100, 100)).save(photo, "PNG")
    refused = client.post("/api/photos", content=photo.getvalue())
    assert refused.status_code == 422
    assert "megapixels" in refused.json()["error"]


def test_other_sites_and_names_are_refused(client: Any) -> None:
    port = client.base_url.port
    assert client.get("/api/collection", headers={"Host": f"evil.example:{port}"}).status_code == 403
    assert client.get("/", headers={"Host": f"localhost:{port}"}).status_code == 200
    assert client.post("/api/photos", content=b"x", headers={"Origin": "http://evil.example"}).status_code == 403


def test_every_answer_carries_the_security_headers(client: Any) -> None:
    for path in ("/", "/page.js", "/api/collection", "/nowhere", "/../../etc/passwd"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_names_no_other_host(client: Any) -> None:
    for path in app.FILES:
        text = client.get(path).text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert "://" not in text, path


def test_a_failure_of_the_program_is_told_without_its_words(
    client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = upload(client, photos / "box.jpg")

    def fail(*args: Any) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("delf_cli.web.searcher.Searcher.search", fail)
    answer = client.post(f"/api/photos/{photo['id']}/search", json={})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "content-security-policy" in answer.headers


def test_the_latest_photos_are_kept_and_the_oldest_forgotten() -> None:
    kept: LruCache[bytes] = LruCache(2, total=10, size=len)
    first, second = kept.add(b"1"), kept.add(b"2")
    assert kept.get(first) == b"1"
    third = kept.add(b"3")
    assert kept.get(second) is None
    assert kept.get(first) == b"1"
    large = kept.add(b"x" * 11)
    assert kept.get(large) is not None
    assert kept.get(first) is None
    assert kept.get(third) is None


def test_options_that_cannot_be_followed_are_one_line(run: Run, index: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run("serve", index, "--port", str(port))
    assert (refused.code, refused.out) == (2, "")
    assert "choose another --host or --port" in refused.err
    assert "--top is 0" in run("serve", index, "--top", "0").err
    assert "no such index" in run("serve", "nowhere", "--port", "0").err


@pytest.mark.slow
def test_ctrl_c_ends_it_at_once(index: Path) -> None:
    command = [sys.executable, "-m", "delf_cli", "serve", str(index), "--port", "0", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        with urllib.request.urlopen(address + "api/collection") as answer:
            assert json.load(answer)["photos"] == 5
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
