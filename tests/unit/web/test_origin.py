"""Requests that pages of other sites make."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.web.origin import check_host, check_site
from portmapd.web.query import RequestRefused

NAMES = ("localhost", "myhost", "www.example.com")

OWN = [
    "localhost",
    "localhost:8080",
    "LOCALHOST",
    "www.example.com.",
    "127.0.0.1:80",
    "192.0.2.7",
    "[::1]",
    "[2001:db8::1]:8080",
]
OTHERS = [
    "",
    "evil.example",
    "evil.example:8080",
    "www.example.com.evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "localhost, evil.example",
    "localhost/evil",
    "evil@localhost",
    "[::1",
    "[::1]evil",
    "::1",
    "0x7f.1",
    "\xff",
]

SITE = {"host": "www.example.com:8080"}
#: Method, header fields.
ALLOWED: list[tuple[str, dict[str, str]]] = [
    ("GET", {}),
    ("POST", {}),
    ("POST", {"origin": "http://www.example.com:8080"}),
    ("POST", {"sec-fetch-site": "same-origin"}),
    ("GET", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}),
    ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
]
REFUSED: list[tuple[str, dict[str, str]]] = [
    ("POST", {"origin": "http://evil.example"}),
    ("POST", {"origin": "http://www.example.com"}),
    ("POST", {"origin": "null"}),
    ("POST", {"origin": ""}),
    ("GET", {"origin": "http://evil.example"}),
    ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
    ("POST", {"sec-fetch-site": "same-site"}),
    ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}),
]


class HostTests(SynchronousTestCase):
    """Names that are led here by others."""

    def test_own(self) -> None:
        """A request by one of our names, or by an address, is served."""
        for host in OWN:
            check_host({"host": host}.get, NAMES)

    def test_others(self) -> None:
        """A request by any other name is not, nor one by something that is no name."""
        for host in OTHERS:
            with self.assertRaisesRegex(RequestRefused, "--http-name NAME adds one", msg=host):
                check_host({"host": host}.get, NAMES)

    def test_none(self) -> None:
        """A request has to say for whom it is."""
        with self.assertRaisesRegex(RequestRefused, "no header field Host"):
            check_host(dict[str, str]().get, NAMES)


class SiteTests(SynchronousTestCase):
    """Requests that a browser was made to send."""

    def test_allowed(self) -> None:
        """Our own pages may ask anything, and links from elsewhere may be followed."""
        for method, header in ALLOWED:
            check_site({**SITE, **header}.get, method)

    def test_refused(self) -> None:
        """A page of another site may neither post nor embed anything."""
        for method, header in REFUSED:
            with self.assertRaises(RequestRefused, msg=f"{method} {header}") as caught:
                check_site({**SITE, **header}.get, method)
            self.assertEqual(caught.exception.status, 403)
