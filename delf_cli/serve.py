"""`delf-jax serve`: a page in the browser that searches an index and locates objects in photos."""

import dataclasses
import ipaddress
import socket
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import Positional, arg

from delf_cli.options import ExtractionOptions, UsageError
from delf_cli.report import Report

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# When the server is stopped, it waits this many seconds for running computations.
_LAST_SECONDS = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve a page in the browser: drop a photo on it to see its matches with proof, or "no match".

    The page works offline, and without a mouse. The server keeps the latest photos in memory and writes nothing. Model
    and settings come from the index, unless options say otherwise. It needs `pip install 'delf-jax[web]'`.

    Attributes:
        index: the index, as written by `delf-jax index`.
        predictor: predictor, as written by `delf-jax fit-localizer`. The page then also shows where the object is, and
            why.
        groups: folder that `delf-jax group` wrote for the index. The page then also shows the groups.
        host: address to listen at. With any other than the default, everyone who can reach it can search the index and
            see its photos.
        port: port to listen at; 0 takes any free port.
        top: number of results per query.
        verify: number of photos per query whose geometry is verified.
        json: print one JSON line with the address.
    """

    index: Annotated[Positional[str], arg(metavar="INDEX")]
    predictor: Annotated[str | None, arg(help_behavior_hint="(default: search only)")] = None
    groups: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="(default: search only)")] = None
    host: str = "127.0.0.1"
    port: int = 8000
    top: int = 10
    verify: int = 100
    extraction: ExtractionOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax serve index --predictor predictor"

    def run(self, report: Report) -> None:
        """Serves the page until it is stopped."""
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
                report.note(f"everyone who can reach {self.host} can search this index and see its photos")
            report.succeeded += 1
            report.result({"address": address}, f"{address} (stop with Ctrl-C)")
            config = uvicorn.Config(
                app,
                access_log=False,
                log_level="critical",  # the application logs its own errors
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
        from delf_cli.web.groups import Groups
        from delf_cli.web.localizer import Localizer
        from delf_cli.web.searcher import Searcher
        from localization import Predictor

        index = retrieval.open_index(self.index)
        extractor = self.extraction.load(base=index.settings, head=index.head_path)
        index.require(extractor.fingerprint)
        localizer = None if self.predictor is None else Localizer(Predictor.open(self.predictor))
        searcher = Searcher(index, extractor, top=self.top, verify=self.verify)
        groups = None if self.groups is None else Groups(self.groups, searcher)
        return app.create(searcher, localizer, groups, host=self.host)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that is bound before slow work begins; UsageError if it cannot be bound."""
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
