"""Fetches public weights into the cache: resumed where it broke off, checked, from mirrors first, or not at all.

pooch keeps the cache and checks; the transfer is this module's, because pooch's own begins anew each time.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pooch
import requests

from delf_jax.errors import ModelError
from delf_jax.files import atomic
from delf_jax.import_weights.public.registry import PublicWeights

OFFLINE_VARIABLE = "DELF_JAX_OFFLINE"
MIRRORS_VARIABLE = "DELF_JAX_MIRRORS"

Advance = Callable[[int, int | None], None]

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = (10, 60)
# Attempts that bring nothing; one that brings bytes starts the count again.
_ATTEMPTS = 5


def is_offline() -> bool:
    """Whether ``$DELF_JAX_OFFLINE`` forbids the network."""
    return os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0")


def mirrors() -> tuple[str, ...]:
    """Addresses in ``$DELF_JAX_MIRRORS``, separated by spaces, below which the files lie by their names."""
    return tuple(address.rstrip("/") for address in os.environ.get(MIRRORS_VARIABLE, "").split())


def fetch(
    weights: PublicWeights, folder: Path, *, offline: bool = False, advance: Advance | None = None, wait: float = 1.0
) -> Path:
    """The file of public weights in `folder`, downloaded if it is not there or damaged.

    Whatever has no published checksum is remembered by the one it came with, and checked against that later.

    Args:
        weights: what to fetch.
        folder: of downloads; made if need be.
        offline: use what is in `folder` only; ``$DELF_JAX_OFFLINE`` has the same effect.
        advance: called with bytes done, and bytes in all once they are known.
        wait: seconds before the second attempt; doubled for each further one.

    Raises:
        ModelError: the network is not to be used, no address gives the file, or what came is not the published file.
    """
    target = folder / weights.file
    record = folder / f"{weights.file}.sha256"
    if target.is_file():
        known = weights.sha256 or (record.read_text().strip() if record.is_file() else "")
        if _digest(target).startswith(known):
            return target
        if offline or is_offline():
            raise ModelError(f"{target}: does not match its checksum; fetch it again when there is a network")
        target.unlink()
    addresses = [f"{mirror}/{weights.file}" for mirror in mirrors()] + ([weights.url] if weights.url else [])
    if not addresses:
        raise ModelError(f"{weights.name}: to be got by hand: {weights.by_hand}; then put {weights.file} into {folder}")
    if offline or is_offline():
        raise ModelError(
            f"{weights.name}: not in the cache and not to be downloaded now; fetch it, or put it at {target}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    reasons: list[str] = []
    for address in addresses:
        try:
            digest = _retrieve(address, target, weights.sha256 or "", _Resuming(target, advance, wait))
        except ModelError as error:
            reasons.append(str(error))
            continue
        atomic.write_bytes(record, f"{digest}\n".encode())
        return target
    raise ModelError(f"{weights.name}: {'; '.join(reasons)}")


def _retrieve(address: str, target: Path, sha256: str, downloader: "_Resuming") -> str:
    """Downloads one file through pooch; returns its SHA-256. ModelError where that fails."""
    pooch.get_logger().setLevel("ERROR")
    try:
        pooch.retrieve(
            address,
            known_hash=f"sha256:{sha256}" if len(sha256) == 64 else None,
            fname=target.name,
            path=target.parent,
            downloader=downloader,
        )
    except requests.RequestException as error:
        raise ModelError(f"{address} did not give it ({_reason(error)}); what came is kept, try again") from error
    except ValueError as error:
        raise ModelError(f"{address} gave another file than the published one (wrong SHA-256)") from error
    digest = _digest(target)
    if not digest.startswith(sha256):
        target.unlink()
        raise ModelError(f"{address} gave another file than the published one (wrong SHA-256)")
    return digest


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    if isinstance(error, ValueError):
        return str(error)
    return "timed out" if isinstance(error, requests.Timeout) else "no connection, or it broke"


class _Resuming:
    """A downloader for pooch that goes on where the last attempt, or the last run, broke off.

    The part that came lies beside the target with the server's own mark of that version of the file; without a mark,
    or when the server does not know it any more, the transfer begins anew.
    """

    def __init__(self, target: Path, advance: Advance | None, wait: float) -> None:
        self.part = target.with_name(f"{target.name}.part")
        self.mark = target.with_name(f"{target.name}.part.mark")
        self.advance = advance or (lambda done, total: None)
        self.wait = wait

    def __call__(self, url: str, output_file: Any, pooch: Any, check_only: bool = False) -> None:
        vain = 0
        while True:
            before = self._size()
            try:
                self._transfer(url)
                break
            except requests.HTTPError as error:
                if error.response is None or error.response.status_code < 500:
                    raise
                failure: requests.RequestException = error
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                failure = error
            vain = 0 if self._size() > before else vain + 1
            if vain == _ATTEMPTS:
                raise failure
            time.sleep(self.wait * 2 ** max(vain - 1, 0))
        os.replace(self.part, output_file)
        self.mark.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _transfer(self, url: str) -> None:
        """One request; returns when the whole file is there."""
        headers, done = {"Accept-Encoding": "identity"}, self._size()
        known = self.mark.read_text().splitlines() if self.mark.is_file() else []
        if done and known[:1] == [url] and len(known) == 2:
            headers |= {"Range": f"bytes={done}-", "If-Range": known[1]}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self.part.unlink()
                raise requests.ConnectionError("the part is longer than the file")
            response.raise_for_status()
            start = f"bytes {done}-"
            resumes = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(start)
            if not resumes:
                done = 0
            length = response.headers.get("Content-Length")
            total = done + int(length) if length is not None else None
            mark = response.headers.get("ETag") or response.headers.get("Last-Modified")
            # A weak mark does not promise the same bytes.
            if mark and not mark.startswith("W/"):
                self.mark.write_text(f"{url}\n{mark}\n")
            else:
                with contextlib.suppress(FileNotFoundError):
                    self.mark.unlink()
            with open(self.part, "ab" if resumes else "wb") as file:
                for chunk in response.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    done += len(chunk)
                    self.advance(done, total)
        if total is not None and done != total:
            raise requests.ConnectionError("the connection broke")


def fetched(weights: PublicWeights, folder: Path) -> Path | None:
    """The file in `folder`, unchecked; None where it is not there."""
    target = folder / weights.file
    return target if target.is_file() else None
