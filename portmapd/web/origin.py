"""Whether a browser was sent here by a page of another site."""

import re
from collections.abc import Callable, Collection

from portmapd.oncrpc.host import is_address
from portmapd.web.query import RequestRefused

#: An address of IPv6 in brackets, or a name or an address; and a port (RFC 9110, 7.2).
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::[0-9]*)?")
#: Gives a header field of the request; None: there is none.
Header = Callable[[str], str | None]


def check_host(header: Header, names: Collection[str]) -> None:
    """Check that the request is for this host by one of its own names.

    The page of another site may have its name lead to an address of ours, and then read what is
    here as its own (DNS rebinding). An address, or a name of ours, cannot be led elsewhere.

    :param names: the names of this host, in lower case.
    :raises RequestRefused: it is not.
    """
    host = header("host")
    if host is None:
        raise RequestRefused(400, "the request has no header field Host")
    name = _host_of(host)
    if not (name in names or is_address(name)):
        raise RequestRefused(
            421, "this is no name of this host that portmapd knows of; --http-name NAME adds one"
        )


def check_site(header: Header, method: str) -> None:
    """Check that no page of another site makes a browser send this request.

    A link from elsewhere may be followed; nothing else may come from there.

    :raises RequestRefused: one does.
    """
    origin = header("origin")
    if origin is not None and origin.partition("://")[2].lower() != (header("host") or "").lower():
        raise RequestRefused(403, "a page of another site may not ask this")
    is_link = method in ("GET", "HEAD") and header("sec-fetch-mode") == "navigate"
    if header("sec-fetch-site") in ("cross-site", "same-site") and not is_link:
        raise RequestRefused(403, "a page of another site may not ask this")


def _host_of(host: str) -> str:
    """The name in a header field Host; empty if it is malformed."""
    found = _HOST.fullmatch(host.strip())
    return "" if found is None else (found[1] or found[2]).lower().rstrip(".")
