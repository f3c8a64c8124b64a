"""`delf-jax serve`: a page to search an index, and to see where the object is, by dropping photos on it."""

import dataclasses
import ipaddress
import socket
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import Positional, arg

from delf_cli.options import ExtractionOptions, UsageError
from delf_cli.report import Report

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# What is still computed when the server is told to end is waited for this long.
_LAST_SECONDS = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve:
    """Open a page in the browser: drop a photo, see its matches with their proof, or an honest "no match".

    The page needs no network, and no mouse. Photos that are dropped stay in memory, the latest few of them; nothing is
    written. The settings and the model are those that the index was made with, unless told otherwise. Needs
    delf-jax[web].

    Attributes:
        index: the index, as written by `delf-jax index`.
        predictor: as written by `delf-jax fit-localizer`: the page then shows where the object is, and why.
        host: the address to listen at. With another than the default everyone who reaches it can search the index and
            see its photos.
        port: 0 takes any free one.
        top: results shown per query.
        verify: photos whose geometry is checked per query.
        json: print one JSON line with the address.
    """

    index: Annotated[Positional[str], arg(metavar="INDEX")]
    predictor: Annotated[str | None, arg(help_behavior_hint="(default: search alone)")] = None
    host: str = "127.0.0.1"
    port: int = 8000
    top: int = 10
    verify: int = 100
    extraction: ExtractionOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax serve index --predictor predictor"

    def run(self, report: Report) -> None:
        """Serves the page until it is interrupted."""
        for name, value in (("--top", self.top), ("--verify", self.verify)):
            if value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port is {self.port}; it must be from 0 to 65535")
        self.extraction.check()
        try:
            import starlette  # noqa: F401
            import uvicorn
        except ImportError as error:
            raise UsageError("the page needs more packages: pip install 'delf-jax[web]'") from error
        with _listening(self.host, self.port) as listening:
            app = self._app()
            port = listening.getsockname()[1]
            address = f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{port}/"
            if not _is_loopback(self.host):
                report.note(f"everyone who reaches {self.host} can search this index and see its photos")
            report.succeeded += 1
            report.result({"address": address}, f"{address} (Ctrl-C ends it)")
            config = uvicorn.Config(
                app,
                access_log=False,
                log_level="critical",  # what fails is logged by the application
                server_header=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=_LAST_SECONDS,
            )
            uvicorn.Server(config).run(sockets=[listening])

    def _app(self) -> "ASGIApp":
        from delf_cli import environment

        environment.keep_memory()
        environment.start_jax()
        import retrieval
        from delf_cli.web import app
        from delf_cli.web.finder import Finder
        from delf_cli.web.locator import Locator
        from localization import Predictor

        index = retrieval.Index.open(self.index)
        extractor = self.extraction.load(base=index.settings, head=index.head_path)
        index.require(extractor.fingerprint)
        locator = None if self.predictor is None else Locator(Predictor.open(self.predictor))
        finder = Finder(index, extractor, top=self.top, verify=self.verify)
        return app.create(finder, locator, host=self.host)


def _listening(host: str, port: int) -> socket.socket:
    """A socket bound before anything slow begins; UsageError where that cannot be."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen at {host} port {port} ({reason}); choose another --host or --port") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
