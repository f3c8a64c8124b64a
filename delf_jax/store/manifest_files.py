"""The two files that hold a store's manifest: one with everything, one with what came lately.

``manifest.json`` is whole. Written anew with every part it would cost more the more parts there are, so it is written
only now and then, and ``recent.json`` with every part: it names by its checksum the manifest that it continues, and
holds the parts since. Each is replaced at once, ``manifest.json`` first, so that whoever reads between the two, or
after a writer that was killed there, can tell what they hold together:

* ``recent.json`` continues this ``manifest.json``: the parts of both count.
* It continues another one and knows of no later part: it is from before this one was written, which has its parts.
* It continues another one and knows of a later part: both were replaced while they were read, and are read again. If
  they still disagree, the manifest is lost, as it is where one of the two is missing or damaged.

Where there is no ``recent.json`` yet it comes first, as a ``manifest.json`` without one counts as damaged.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from delf_jax.errors import StoreError
from delf_jax.files import json_files
from delf_jax.files.folder import Folder
from delf_jax.store.manifest import Manifest, number_and_digest

WHOLE = "manifest.json"
RECENT = "recent.json"
MOST_RECENT = 256
"""Parts in ``recent.json`` at most. At 100 000 parts the two files then cost alike, 0.1 MB a part in all."""

_VERSION = 2
_FORMAT = "delf-jax feature store"
_TRIES = 3


class LostManifest(StoreError):
    """A manifest that is missing or damaged, of a store whose parts may be whole."""

    def __init__(self, address: str, name: str, state: str) -> None:
        remedy = f"`delf-jax check {address} --repair` makes it anew from the parts"
        super().__init__(f"{address}: its {name} is {state}; {remedy}")
        self.address = address
        self.name = name
        self.state = state

    def __reduce__(self) -> tuple[type["LostManifest"], tuple[str, str, str]]:
        return type(self), (self.address, self.name, self.state)


class ManifestFiles:
    """The manifest of the store in a folder.

    Attributes:
        whole: what ``manifest.json`` holds, as far as it was read or written; ``read`` leaves it here even where
            ``recent.json`` is damaged.
    """

    def __init__(self, folder: Folder, write: Callable[[str, bytes], None] | None = None) -> None:
        """Of the files in ``folder``, written by ``write(name, data)``, or by the folder's own."""
        self.whole: Manifest | None = None
        self._folder = folder
        self._write = write or folder.write
        self._checksum: str | None = None  # of manifest.json, where recent.json may continue it
        self._has_recent = False

    def read(self) -> Manifest | None:
        """The manifest; None where there is no store.

        Raises:
            LostManifest: it is missing although there are parts, or damaged.
            StoreError: it cannot be read, is newer, or of something else.
        """
        for _ in range(_TRIES):
            self.whole, self._checksum = None, None
            try:
                file = self._read(WHOLE)
            except NotADirectoryError:
                return None
            except FileNotFoundError:
                if any(map(number_and_digest, self._folder.names("parts"))):
                    raise LostManifest(self._folder.address, WHOLE, "missing") from None
                return None
            with self._damage_of(WHOLE):
                self.whole = Manifest.from_json(file.body)
            if file.version == 1:  # from before there were two files
                return self.whole
            try:
                recent = self._read(RECENT)
            except FileNotFoundError:
                raise LostManifest(self._folder.address, RECENT, "missing") from None
            self._checksum, self._has_recent = file.sha256, True
            with self._damage_of(RECENT):
                if recent.body["continues"] == file.sha256:
                    return self.whole.followed(recent.body)
                if recent.body["next_part"] <= self.whole.next_part:
                    return self.whole
        raise LostManifest(self._folder.address, RECENT, f"of another {WHOLE}")

    def write(self, manifest: Manifest) -> None:
        """Makes ``manifest`` what the store says; it follows the one that was read or written last."""
        if self.whole is None or self._checksum is None or len(manifest.parts) - len(self.whole.parts) > MOST_RECENT:
            self.write_whole(manifest)
        else:
            self._write(RECENT, _sealed({"continues": self._checksum} | manifest.since(self.whole))[0])

    def write_whole(self, manifest: Manifest) -> None:
        """The same where it does not follow: parts were left out."""
        whole, checksum = _sealed(manifest.to_json())
        recent, _ = _sealed({"continues": checksum} | manifest.since(manifest))
        files = [(WHOLE, whole), (RECENT, recent)]
        self.whole, self._checksum = None, None  # whatever fails now may have been done
        for name, data in files if self._has_recent else reversed(files):
            self._write(name, data)
        self.whole, self._checksum, self._has_recent = manifest, checksum, True

    def _read(self, name: str) -> "_Opened":
        try:
            data = self._folder.read(name)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            raise StoreError(
                f"{self._folder.address}: cannot be read ({error}); check its permissions or the connection"
            ) from None
        with self._damage_of(name):
            return _opened(data, self._folder.address)

    @contextlib.contextmanager
    def _damage_of(self, name: str) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError):
            raise LostManifest(self._folder.address, name, "damaged") from None


class _Opened(NamedTuple):
    body: dict[str, Any]
    sha256: str
    version: int


def _sealed(body: dict[str, Any]) -> tuple[bytes, str]:
    """The file of a body, and its checksum, which is over the version too."""
    body = body | {"version": _VERSION}
    sha256 = _digest(body)
    envelope = {"format": _FORMAT, "version": _VERSION, "sha256": sha256, "store": body}
    return json.dumps(envelope, ensure_ascii=False).encode(), sha256


def _opened(data: bytes, address: str) -> _Opened:
    """What ``_sealed`` made a file of; StoreError where it is newer or something else, ValueError where damaged."""
    envelope = json_files.loads_object(data)
    body, version = envelope.get("store"), envelope["version"]
    if not isinstance(body, dict) or _digest(body) != envelope.get("sha256"):
        if envelope["format"] != _FORMAT:
            raise StoreError(f"{address}: is not a feature store; give one that `delf-jax extract` wrote")
        raise ValueError("its checksum is wrong")
    if envelope["format"] != _FORMAT or body.get("version", 1) != version:
        raise ValueError("its format or version is wrong")
    if version > _VERSION:
        raise StoreError(f"{address}: was written by a newer delf-jax (format {version}); update delf-jax")
    return _Opened(body, envelope["sha256"], version)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
