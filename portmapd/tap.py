"""The options of ``twistd portmapd``."""

import gc
import os
import resource
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from portmapd.config import PORT, UNPRIVILEGED_PORT, Config, may_bind
from portmapd.errors import ConfigurationError
from portmapd.service import PortmapperService

#: A garbage collection stops everything for a time in proportion to the number of objects, and
#: finds next to nothing, since connections and registrations are in no cycles. With the
#: interpreter's defaults, collections would grow more and longer with every registration.
GC_THRESHOLDS = (10_000, 100, 100)


class CannotStart(Exception, SystemExit):
    """Ends the start with one line and status 1, in the foreground and in the background.

    As an Exception, it is passed on to the process that waits for a start in the background. As a
    SystemExit, it is printed without a traceback.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        # Exception.__init__ comes first and does not set it.
        self.code = line


class TwistdPortmapper(PortmapperService):
    """The port mapper as twistd runs it."""

    _log = Logger()

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except ConfigurationError as error:
            raise CannotStart(f"portmapd: {error}") from None

    def startService(self) -> None:
        super().startService()
        if self.port == UNPRIVILEGED_PORT and not may_bind(PORT):
            self._log.info(
                "serving port {ours}, because port {usual} needs root or CAP_NET_BIND_SERVICE",
                ours=UNPRIVILEGED_PORT,
                usual=PORT,
            )


class Options(UsageOptions):
    """Options of ``twistd portmapd``."""

    longdesc = "Serve RPC program 100000: portmap version 2, rpcbind versions 3 and 4."

    optParameters: ClassVar[list[Any]] = [
        ["port", "p", None, "Port on UDP and TCP. [default: 111 if it may be bound, "
         "else 10111]"],
        ["rpc-socket", None, None,
         "Path of the rpcbind socket, or none. [default: /run/rpcbind.sock as root, else none]"],
        ["local-socket", None, None,
         "Path of the local channel's socket, or none. [default: /run/portmapd/portmapd.sock as "
         "root, else $XDG_RUNTIME_DIR/portmapd.sock]"],
        ["max-services", None, None,
         "The most services and mappings that one process may hold on the local channel. "
         "[default: 10]"],
        ["callit", None, None,
         "Whose calls to forward: off, local (of this host), null (others' procedure 0 too), "
         "or all. [default: local]"],
        ["liveness", None, None, "Seconds between two checks for dead services. [default: 1]"],
    ]  # fmt: skip
    optFlags: ClassVar[list[Any]] = [
        ["insecure", None, "Accept SET and UNSET from other hosts, not only from this one."]
    ]
    compData: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[str, list[str]] = {}

    def opt_interface(self, address: str) -> None:
        """Address to serve on; may be repeated. 0.0.0.0 and :: serve the network.
        [default: 127.0.0.1 and ::1]
        """
        self.lists.setdefault("interfaces", []).append(address)

    def opt_trust(self, network: str) -> None:
        """Network (CIDR) whose UDP callers may get replies larger than their requests; may be
        repeated.
        """
        self.lists.setdefault("trust", []).append(network)

    def opt_allow(self, network: str) -> None:
        """Network (CIDR) whose callers are answered, beside this host; may be repeated.
        [default: all]
        """
        self.lists.setdefault("allow", []).append(network)

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise UsageError(f"portmapd takes options only, not {arguments[0]!r}")

    def config(self) -> Config:
        """The configuration that the options describe.

        :raises UsageError: an option cannot be used. The message says what to do.
        """
        values: dict[str, Any] = {"insecure": bool(self["insecure"]), **self.lists}
        for option, read in _READERS.items():
            if self[option] is not None:
                values[option.replace("-", "_")] = read(option, self[option])
        try:
            return Config(**values)
        except ConfigurationError as error:
            raise UsageError(f"portmapd: {error}") from None


def _whole(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"portmapd: --{option} {text!r} is no whole number") from None


def _seconds(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"portmapd: --{option} {text!r} is no number of seconds") from None


def _path(option: str, text: str) -> str | None:
    return None if text == "none" else text


def _text(option: str, text: str) -> str:
    return text


_READERS: dict[str, Callable[[str, str], Any]] = {
    "port": _whole,
    "rpc-socket": _path,
    "local-socket": _path,
    "max-services": _whole,
    "callit": _text,
    "liveness": _seconds,
}


def makeService(options: Options) -> IService:
    """Make the service that the options describe.

    :raises CannotStart: an option cannot be used.
    """
    from twisted.internet import reactor

    try:
        config = options.config()
    except UsageError as error:
        raise CannotStart(str(error)) from None
    _raise_descriptor_limit()
    gc.set_threshold(*GC_THRESHOLDS)
    service: IService = TwistdPortmapper(config, reactor)
    return service


def _raise_descriptor_limit() -> None:
    """Raise the limit on descriptors as far as allowed: every connection takes one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
