"""Two changers and three readers on one index: no change is lost, and no reader sees a half of one."""

import contextlib
import io
import json
import random
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import retrieval
from delf_cli.main import main
from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from tests.soak import ground
from tests.soak.ground import Tally

_STAY = tuple(f"stays {number}" for number in range(8))
_MOST_OWN = 6


def one_index(seconds: int, folder: Path, rng: random.Random) -> Tally:
    """An index in one piece, changed for so many seconds."""
    retrieval.Index.build([(name, _features(name)) for name in _STAY], backend="exact", out=folder / "index")
    return _changed_and_read(Tally("two changers and three readers of an index"), seconds, folder, rng)


def sharded_index(seconds: int, folder: Path, rng: random.Random) -> Tally:
    """An index in two shards, changed for so many seconds."""
    photos = [(name, _features(name)) for name in _STAY]
    retrieval.ShardedIndex.build(photos, folder / "index", shards=2, backend="exact")
    return _changed_and_read(Tally("the same of an index in shards"), seconds, folder, rng)


def _changed_and_read(tally: Tally, seconds: int, folder: Path, rng: random.Random) -> Tally:
    path, reports = folder / "index", [folder / f"{number}.json" for number in range(5)]
    roles = [change, change, read, read, read]
    processes = [
        ground.SERVER.Process(target=role, args=(str(path), str(report), float(seconds), rng.randrange(1 << 30)))
        for role, report in zip(roles, reports)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    said: list[dict[str, Any]] = [json.loads(report.read_bytes()) for report in reports]
    found = Counter(retrieval.open_index(path).names)
    wanted = {*_STAY, *(name for report in said[:2] for name in report["own"])}
    tally.lost, tally.doubled = len(wanted - found.keys()), sum(found.values()) - len(found)
    tally.wrong = len(found.keys() - wanted) + sum(len(report["wrong"]) for report in said)
    tally.tried = sum(report["done"] for report in said[:2])
    tally.notes["refused, and tried again"] = sum(report["refused"] for report in said)
    tally.notes["reads, all of them right"] = sum(report["done"] for report in said[2:])
    tally.notes["nothing left beside the index"] += [p.name for p in folder.iterdir() if p.name.startswith(".")] == []
    for report in said:
        for line in report["wrong"]:
            print(line)
    return tally


def change(path: str, report: str, seconds: float, seed: int) -> None:
    """Adds photos as a library user does, and removes them as the command does; tries again what is refused."""
    own: list[str] = []
    done = refused = 0
    wrong: list[str] = []
    end = time.monotonic() + seconds
    rng = random.Random(seed)
    while time.monotonic() < end or done < 2:
        name = f"{seed} {done}"
        remove = own[0] if len(own) >= _MOST_OWN or (own and rng.random() < 0.4) else None
        try:
            if remove is None:
                retrieval.open_index(path).add([(name, _features(name))])
                own.append(name)
            else:
                with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
                    if main(["index", "--out", path, "--remove", remove]):
                        raise SearchIndexError(said.getvalue())
                own.pop(0)
            done += 1
        except SearchIndexError as error:
            if not any(words in str(error) for words in ("another writer is at work", "changed since it was opened")):
                wrong.append(f"changer: {error}")
                break
            refused += 1
        time.sleep(rng.uniform(0.0, 0.02))
    Path(report).write_text(json.dumps({"own": own, "done": done, "refused": refused, "wrong": wrong}))


def read(path: str, report: str, seconds: float, seed: int) -> None:
    """Opens the index again and again, and searches in one that stays open."""
    done, wrong = 0, []
    end = time.monotonic() + seconds
    rng = random.Random(seed)
    stays_open = retrieval.open_index(path)
    while time.monotonic() < end and len(wrong) < 5:
        try:
            for index in (retrieval.open_index(path), stays_open):
                if reason := _mistake(index, rng):
                    wrong.append(f"reader: {reason}")
                done += 1
        except Exception as error:  # whatever it is, a reader was disturbed
            wrong.append(f"reader: {type(error).__name__}: {error}")
    Path(report).write_text(json.dumps({"done": done, "refused": 0, "wrong": wrong}))


def _mistake(index: retrieval.SearchableIndex, rng: random.Random) -> str | None:
    """What is wrong with an index; None if nothing is."""
    names = index.names
    if len(set(names)) != len(names) or not set(_STAY) <= set(names):
        return f"its photos are {names}"
    name = rng.choice(_STAY)
    truth = _features(name)
    if not np.array_equal(index.features(name).keypoints, truth.keypoints):
        return f"{name} has other features"
    found = index.search(truth, verify=0, top=1)
    if found.lost or found.matches[0].image != name:
        return f"{name} was not found: {found}"
    return None


def _features(name: str) -> LocalFeatures:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    descriptors = rng.normal(size=(8, 32)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    scores = np.linspace(1, 0.5, 8, dtype=np.float32)
    return LocalFeatures(rng.uniform(0, 99, (8, 2)).astype(np.float32), np.ones(8, "f"), scores, descriptors, (99, 99))
