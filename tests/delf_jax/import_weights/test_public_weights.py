"""Downloads against a real server that misbehaves, archives that must not be trusted, and the list itself."""

import dataclasses
import errno
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from delf_jax.errors import ModelError
from delf_jax.import_weights.public import download
from delf_jax.import_weights.public.archives import unpacked
from delf_jax.import_weights.public.download import fetch
from delf_jax.import_weights.public.registry import PublicWeights, find, registry
from tests.delf_jax.import_weights.file_server import FileServer, serving

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in (download.OFFLINE_VARIABLE, download.MIRRORS_VARIABLE, "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving({"a.bin": CONTENT}) as running:
        yield running


def weights(server: FileServer, **changes: object) -> PublicWeights:
    entry = PublicWeights("a", "a.bin", f"{server.address}/a.bin", None, SHA256, None, "MIT", "us", "tests", None)
    return dataclasses.replace(entry, **changes)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8], None])
def test_a_file_is_fetched_once(server: FileServer, tmp_path: Path, sha256: str | None) -> None:
    seen: list[tuple[int, int | None]] = []
    for _ in range(2):
        path = fetch(
            weights(server, sha256=sha256), tmp_path / "new", advance=lambda done, total: seen.append((done, total))
        )
        assert path.read_bytes() == CONTENT
    assert server.requests == [("a.bin", None)]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert files(tmp_path / "new") == ["a.bin", "a.bin.sha256"]


def test_cut_connections_are_resumed_where_they_broke(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [300_000, 1, 200_000]
    assert fetch(weights(server), tmp_path, wait=0).read_bytes() == CONTENT
    starts = [int(asked[6:-1]) for _, asked in server.requests[1:]]
    assert len(starts) == 3
    # Only what stood in the last buffer is asked for again.
    assert 0 < 300_000 - starts[0] < 1 << 18
    assert starts == sorted(starts)
    assert server.bytes_sent < len(CONTENT) + 3 * (1 << 18)


def test_a_killed_download_goes_on_in_the_next_run(server: FileServer, tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(weights(server), tmp_path, advance=interrupt)
    done = (tmp_path / "a.bin.part").stat().st_size
    assert 0 < done < len(CONTENT)
    assert not (tmp_path / "a.bin").exists()
    assert fetch(weights(server), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == ("a.bin", f"bytes={done}-")
    assert files(tmp_path) == ["a.bin", "a.bin.sha256"]


def test_servers_without_ranges_send_everything_again(server: FileServer, tmp_path: Path) -> None:
    server.knows_ranges = False
    server.cuts = [300_000]
    assert fetch(weights(server), tmp_path, wait=0).read_bytes() == CONTENT
    assert server.bytes_sent == 300_000 + len(CONTENT)


def test_a_file_that_changed_meanwhile_is_not_patched_together(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [300_000] + [0] * 5
    with pytest.raises(ModelError, match="no connection, or it broke"):
        fetch(weights(server, sha256=None), tmp_path, wait=0)
    server.files["a.bin"] = CONTENT[::-1]
    assert fetch(weights(server, sha256=None), tmp_path).read_bytes() == CONTENT[::-1]


def test_a_part_longer_than_the_file_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [300_000] + [0] * 5
    with pytest.raises(ModelError):
        fetch(weights(server), tmp_path, wait=0)
    with open(tmp_path / "a.bin.part", "ab") as part:
        part.write(CONTENT)
    assert fetch(weights(server), tmp_path, wait=0).read_bytes() == CONTENT


@pytest.mark.parametrize("sha256", ["0" * 64, "00000000"])
def test_another_file_than_the_published_one_is_not_kept(server: FileServer, tmp_path: Path, sha256: str) -> None:
    with pytest.raises(ModelError, match=rf"a: {server.address}/a\.bin sent another file .*wrong SHA-256"):
        fetch(weights(server, sha256=sha256), tmp_path)
    assert files(tmp_path) == []


def test_refusals_are_final_and_troubles_are_not(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="HTTP 404 Not Found"):
        fetch(weights(server, url=f"{server.address}/b.bin"), tmp_path, wait=0)
    assert len(server.requests) == 1
    server.statuses = [503, 503]
    assert fetch(weights(server), tmp_path, wait=0).read_bytes() == CONTENT
    server.statuses = [503] * 9
    (tmp_path / "a.bin").unlink()
    with pytest.raises(ModelError, match="HTTP 503"):
        fetch(weights(server), tmp_path, wait=0)
    with pytest.raises(ModelError, match="no connection, or it broke"):
        fetch(weights(server, url="http://127.0.0.1:1/a.bin"), tmp_path, wait=0)


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_damage_in_the_cache_is_noticed_and_mended(server: FileServer, tmp_path: Path, sha256: str | None) -> None:
    entry = weights(server, sha256=sha256)
    path = fetch(entry, tmp_path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ModelError, match=r"a\.bin: does not match its checksum"):
        fetch(entry, tmp_path, offline=True)
    assert fetch(entry, tmp_path).read_bytes() == CONTENT


def test_offline_uses_the_cache_alone(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for offline in (True, False):
        with pytest.raises(
            ModelError, match=r"not in the cache, and the network may not be used; fetch it, or put it at .*a\.bin"
        ):
            fetch(weights(server), tmp_path, offline=offline)
        monkeypatch.setenv(download.OFFLINE_VARIABLE, "1")
    assert server.requests == []
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert fetch(weights(server), tmp_path) == tmp_path / "a.bin"


def test_mirrors_are_asked_first(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({"weights/a.bin": CONTENT, "weights/c.bin": CONTENT}) as mirror:
        addresses = f"{mirror.address}/none {mirror.address}/weights/"
        monkeypatch.setenv(download.MIRRORS_VARIABLE, addresses)
        assert fetch(weights(server), tmp_path, wait=0).read_bytes() == CONTENT
        assert mirror.requests == [("none/a.bin", None), ("weights/a.bin", None)]
        assert server.requests == []
        fetch(weights(server, url=None, file="c.bin", by_hand="ask"), tmp_path)
        monkeypatch.delenv(download.MIRRORS_VARIABLE)
        with pytest.raises(ModelError, match=r"a: get it by hand: ask; then put d\.bin into"):
            fetch(weights(server, url=None, file="d.bin", by_hand="ask"), tmp_path)


def make_archive(path: Path, name: str, *, link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        if link:
            member.type, member.linkname = tarfile.SYMTYPE, link
        else:
            member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    return path


def test_archives_are_unpacked_for_the_while(tmp_path: Path) -> None:
    with unpacked(make_archive(tmp_path / "a.tar.gz", "delf/model/file")) as folder:
        assert (folder / "delf" / "model" / "file").read_bytes() == b"abc"
    assert not folder.exists()
    with unpacked(tmp_path) as same:
        assert same == tmp_path


@pytest.mark.parametrize(("name", "link"), [("../evil", None), ("delf/link", "../../evil"), ("delf/link", "/etc")])
def test_archives_cannot_write_elsewhere(tmp_path: Path, name: str, link: str | None) -> None:
    with (
        pytest.raises(ModelError, match="would write outside its folder"),
        unpacked(make_archive(tmp_path / "a", name, link=link)),
    ):
        pass
    assert files(tmp_path) == ["a"]


def test_an_archive_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", "delf/file")

    def refused(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refused)  # root may read everything
    with pytest.raises(ModelError, match=r"cannot be read \(Permission denied\); change its permissions"):
        unpacked(archive).__enter__()


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    data = make_archive(tmp_path / "a.tar.gz", "delf/file").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(data[:-20])
    with pytest.raises(ModelError, match="a damaged archive"), unpacked(tmp_path / "a.tar.gz"):
        pass
    (tmp_path / "a.whl").write_bytes(b"no zip")
    with pytest.raises(ModelError, match="a damaged archive"), unpacked(tmp_path / "a.whl"):
        pass


def test_the_list_is_whole() -> None:
    hosts = (
        "storage.googleapis.com/delf/",
        "download.pytorch.org/",
        "dl.fbaipublicfiles.com/",
        "github.com/huggingface/",
    )
    for name, entry in registry().items():
        assert entry.name == name
        assert all((entry.licence, entry.paper, entry.good_for))
        assert (entry.url is None) != (entry.by_hand is None)
        if entry.url is not None:
            assert entry.url.removeprefix("https://").startswith(hosts), name
            assert entry.url.endswith(entry.file)
            # The first digits of the sum stand in the names of PyTorch's and timm's files.
            if "-" in entry.file and entry.sha256:
                assert entry.file.rpartition("-")[2].startswith(entry.sha256[:8])
        if entry.sha256 is not None:
            assert len(entry.sha256) in (8, 64)
            assert set(entry.sha256) <= set("0123456789abcdef")
    assert len({entry.file for entry in registry().values()}) == len(registry())
    published = {name: (e.delf.score_threshold, e.delf.pca_dimension) for name, e in registry().items() if e.delf}
    assert published == {
        "delf_v1_20171026": (100.0, 40),
        "delf_gld_20190411": (100.0, 128),
        "r50delg_gld_20200814": (175.0, None),
        "r101delg_gld_20200814": (166.1, None),
        "r50delg_gldv2clean_20200914": (454.6, None),
        "r101delg_gldv2clean_20200914": (357.48, None),
    }
    with pytest.raises(ModelError, match="did you mean delf_v1_20171026"):
        find("delf_v1")
