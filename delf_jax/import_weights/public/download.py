"""Downloads public weights into the cache: from mirrors first, resumed where a transfer broke off, and checked."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import requests

from delf_jax.errors import ModelError
from delf_jax.files import atomic
from delf_jax.files.changer import only_changer
from delf_jax.files.checksum import file_sha256
from delf_jax.import_weights.public.registry import PublicWeights

OFFLINE_VARIABLE = "DELF_JAX_OFFLINE"
MIRRORS_VARIABLE = "DELF_JAX_MIRRORS"

Advance = Callable[[int, int | None], None]

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = (10, 60)
# Attempts in a row that bring no bytes.
_ATTEMPTS = 5


def is_offline() -> bool:
    """Whether ``$DELF_JAX_OFFLINE`` forbids the network."""
    return os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0")


def mirrors() -> tuple[str, ...]:
    """Addresses in ``$DELF_JAX_MIRRORS``, separated by spaces; the files are below them by their names."""
    return tuple(address.rstrip("/") for address in os.environ.get(MIRRORS_VARIABLE, "").split())


def fetch(
    weights: PublicWeights, folder: Path, *, offline: bool = False, advance: Advance | None = None, wait: float = 1.0
) -> Path:
    """The file of public weights in ``folder``, downloaded if it is not there or damaged.

    If no checksum was published, the one of the first download is kept and checked later.

    Args:
        weights: what to fetch.
        folder: of downloads; created if needed.
        offline: use only what is in ``folder``; ``$DELF_JAX_OFFLINE`` has the same effect.
        advance: called with the bytes that have come, and all bytes once their number is known.
        wait: seconds before the second attempt; doubled for each further one.

    Raises:
        ModelError: the network may not be used, no address gives the file, the file is not the published one, or
            another process is downloading it.
    """
    target = folder / weights.file
    record = folder / f"{weights.file}.sha256"
    if target.is_file():
        known = weights.sha256 or (record.read_text().strip() if record.is_file() else "")
        if file_sha256(target).startswith(known):
            return target
        if offline or is_offline():
            raise ModelError(f"{target}: does not match its checksum; fetch it again when there is a network")
        target.unlink()
    addresses = [f"{mirror}/{weights.file}" for mirror in mirrors()] + ([weights.url] if weights.url else [])
    if not addresses:
        raise ModelError(f"{weights.name}: get it by hand: {weights.by_hand}; then put {weights.file} into {folder}")
    if offline or is_offline():
        raise ModelError(
            f"{weights.name}: not in the cache, and the network may not be used; fetch it, or put it at {target}"
        )
    download = _Download(target, advance or (lambda done, total: None))
    reasons: list[str] = []
    with only_changer(target, ModelError):
        for address in addresses:
            try:
                digest = download.run(address, weights.sha256 or "", wait)
            except ModelError as error:
                reasons.append(str(error))
                continue
            atomic.write_bytes(record, f"{digest}\n".encode())
            return target
    raise ModelError(f"{weights.name}: {'; '.join(reasons)}")


class _Download:
    """Goes on where the last attempt, or the last run, broke off.

    The bytes so far are in a file beside the target, with the server's own mark of that version of the file. Without a
    mark, or when the server no longer knows it, the transfer begins anew.
    """

    def __init__(self, target: Path, advance: Advance) -> None:
        self.target = target
        self.part = target.with_name(f"{target.name}.part")
        self.mark = target.with_name(f"{target.name}.part.mark")
        self.advance = advance

    def run(self, address: str, sha256: str, wait: float) -> str:
        """Downloads the target and returns its SHA-256; ModelError if that fails."""
        try:
            self._attempt(address, wait)
        except requests.RequestException as error:
            raise ModelError(
                f"{address} did not send it ({_reason(error)}); the bytes so far are kept, try again"
            ) from error
        digest = file_sha256(self.part)
        self.mark.unlink(missing_ok=True)
        if not digest.startswith(sha256):
            self.part.unlink()
            raise ModelError(f"{address} sent another file than the published one (wrong SHA-256)")
        os.replace(self.part, self.target)
        return digest

    def _attempt(self, address: str, wait: float) -> None:
        """Transfers until the file is complete, or several attempts in a row brought nothing."""
        vain = 0
        while True:
            before = self._size()
            try:
                return self._transfer(address)
            except requests.HTTPError as error:
                if error.response is None or error.response.status_code < 500:
                    raise
                failure: requests.RequestException = error
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                failure = error
            vain = 0 if self._size() > before else vain + 1
            if vain == _ATTEMPTS:
                raise failure
            time.sleep(wait * 2 ** max(vain - 1, 0))

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _transfer(self, address: str) -> None:
        """One request; returns when the whole file is there."""
        headers, done = {"Accept-Encoding": "identity"}, self._size()
        known = self.mark.read_text().splitlines() if self.mark.is_file() else []
        if done and known[:1] == [address] and len(known) == 2:
            headers |= {"Range": f"bytes={done}-", "If-Range": known[1]}
        with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
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
                self.mark.write_text(f"{address}\n{mark}\n")
            else:
                self.mark.unlink(missing_ok=True)
            with open(self.part, "ab" if resumes else "wb") as file:
                for chunk in response.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    done += len(chunk)
                    self.advance(done, total)
        if total is not None and done != total:
            raise requests.ConnectionError("the connection broke")


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    if isinstance(error, ValueError):
        return str(error)
    return "timed out" if isinstance(error, requests.Timeout) else "no connection, or it broke"
