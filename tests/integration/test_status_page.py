"""The status page, as a browser shows it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from portmapd.oncrpc.program import Pmap, encode_pmap
from tests.support.browser import Browser, browser
from tests.support.exchange import connect_local, exchange, question
from tests.support.namespace import found
from tests.support.web import WebDaemon, web_daemon

pytestmark = pytest.mark.skipif(not found("chromium"), reason="not on this machine: chromium")

#: What a page would run if it took a name for anything but text.
HOSTILE = "<img/src=x/onerror=document.title='hacked'>"
NAMES = (
    "[...document.querySelectorAll('#services tbody tr td:first-child')].map(c => c.textContent)"
)
PROGRAMS = "[...document.querySelectorAll('#programs tbody tr')].map(r => r.textContent)"


@frozen
class Shown:
    """A daemon, and a browser that shows its page."""

    web: WebDaemon
    browser: Browser

    def open(self) -> None:
        """Show the page anew, and wait until it has everything."""
        self.browser.open("about:blank#")
        self.browser.call("Page.navigate", url=f"http://localhost:{self.web.port}/")
        self.browser.until("document.querySelector('#state.live') !== null", "the page is live")
        self.browser.run("window.mark = 'no reload'")

    def until_names(self, *names: str) -> None:
        """Wait until the services have these names, in any order."""
        wanted = json.dumps(sorted(("portmapd.portmapd", *names)))
        self.browser.until(f"JSON.stringify({NAMES}.sort()) === JSON.stringify({wanted})", wanted)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Give a daemon and a browser to all tests of this module."""
    folder = tmp_path_factory.mktemp("page")
    with web_daemon(folder) as web, browser(folder / "profile") as page:
        yield Shown(web, page)


@pytest.fixture(autouse=True)
def no_complaints(shown: Shown) -> Iterator[None]:
    """Fail a test in which the page had an error, or wanted what its policy forbids."""
    yield
    assert shown.browser.complaints == []


def test_live(shown: Shown) -> None:
    """Tables fill; what is registered and what ends is shown without a reload."""
    with shown.web.client() as client:
        client.reg("printer.example.com", 9100)
        shown.open()
        shown.until_names("printer.example.com")
        client.reg("scanner.example.com", "/run/scanner")
        shown.until_names("printer.example.com", "scanner.example.com")
        client.set(100003, 3, "udp", "0.0.0.0.8.1")
        client.set(100003, 4, "tcp", "0.0.0.0.8.1")
        row = "100003.*4, 3tcp, udptcp 0.0.0.0.8.1\\nudp 0.0.0.0.8.1superuser.*alive"
        shown.browser.until(f"{PROGRAMS}.some(r => /{row}/.test(r))", "one row for a program")
    shown.until_names()
    shown.browser.until(f"!{PROGRAMS}.some(r => r.startsWith('100003'))", "the program is gone")
    assert shown.browser.run("window.mark") == "no reload"


def test_hostile_names(shown: Shown) -> None:
    """A name stays text, whatever it is."""
    names = (HOSTILE, "=1+1", "شبكة.example", "打印机", "a\u202eb", "x" * 255)
    with shown.web.client() as client:
        client.reg([(name, number) for number, name in enumerate(names, 9000)])
        shown.open()
        shown.until_names(*names)
        assert shown.browser.run("document.images.length") == 0
        assert shown.browser.run("document.title").startswith("portmapd on ")
        assert shown.browser.run("document.documentElement.scrollWidth <= innerWidth")
    shown.until_names()


def test_keyboard(shown: Shown) -> None:
    """``/`` begins to filter, each word counts, and Escape shows everything again."""
    with shown.web.client() as client:
        client.reg([("printer.example.com", 9100), ("scanner.example.com", 9101)])
        shown.open()
        shown.browser.type("/scan 9101")
        shown.browser.until(f"{NAMES}.join() === 'scanner.example.com'", "one service is left")
        assert (
            shown.browser.run("document.getElementById('services-count').textContent") == "1 of 3"
        )
        shown.browser.press("Escape")
        shown.until_names("printer.example.com", "scanner.example.com")
        shown.browser.run("document.querySelector('#services th button').click()")
        shown.browser.until(f"{NAMES}[0] === 'scanner.example.com'", "the order is turned round")


def test_phone(shown: Shown) -> None:
    """On a narrow screen nothing is cut off, in light and dark."""
    with shown.web.client() as client:
        client.reg([("x" * 255, 9100), ("printer", "/run/" + "y" * 100)])
        try:
            colours = set()
            for scheme in ("light", "dark"):
                shown.browser.show(390, 844, scheme)
                shown.open()
                shown.until_names("x" * 255, "printer")
                assert shown.browser.run("document.documentElement.scrollWidth") <= 390
                colours.add(shown.browser.run("getComputedStyle(document.body).backgroundColor"))
            assert len(colours) == 2
        finally:
            shown.browser.show(1200, 900)


def test_plots(shown: Shown) -> None:
    """Calls are drawn by their procedure, and counted."""
    shown.open()
    with connect_local(shown.web.daemon.path) as skt:
        for _ in range(20):
            exchange(skt, question(2, 3, encode_pmap(Pmap(7, 1, 17, 0))))
    legend = "document.querySelector('#plots figure ul').textContent"
    shown.browser.until(f"{legend}.includes('GETPORT')", "GETPORT is drawn")
    assert shown.browser.run("document.querySelectorAll('#plots polyline').length") >= 2
    assert "calls" in shown.browser.run("document.getElementById('counters').textContent")


def test_daemon_restarts(shown: Shown, tmp_path: Path) -> None:
    """The page says when the connection is lost, goes on by itself, and begins anew."""
    with web_daemon(tmp_path) as web:
        Shown(web, shown.browser).open()
    shown.browser.until("document.querySelector('#state.lost') !== null", "it is lost")
    options = ("--http", f"tcp:{web.port}:interface=127.0.0.1")
    with web_daemon(tmp_path, *options) as again, again.client() as client:
        client.reg("after.example", 9100)
        Shown(again, shown.browser).until_names("after.example")
        assert shown.browser.run("window.mark") == "no reload"
        shown.browser.open("about:blank#")
    # The browser tells of each attempt that failed.
    shown.browser.complaints.clear()
