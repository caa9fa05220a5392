"""The events of the log: each is on its page, and nothing else is."""

import ast
import re
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from portmapd.portmapper.caller import Caller
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from portmapd.server import log_events
from portmapd.server.log_events import EVENTS, LogEvent
from portmapd.server.rate_limited_log import MAX_CHANGES, MAX_LINES, PERIOD, RateLimitedLog
from portmapd.server.registration_log import RegistrationLog
from tests.support.rpc_samples import PortMapper, call, local, remote, rpcb

TOP = Path(__file__).resolve().parents[3]
#: A row of the page's table: name, level, fields.
ROW = re.compile(r"^   \* - ``([\w-]+)``\n     - (\w+)\n     - (.*)$", re.MULTILINE)


class PageTests(SynchronousTestCase):
    """The list of events in the documentation."""

    def test_page(self) -> None:
        """The page names every event with its level and its fields, and no other."""
        page = (TOP / "docs" / "log-events.rst").read_text()
        rows = {
            name: (level, re.findall("``(.*?)``", cell)) for name, level, cell in ROW.findall(page)
        }
        self.assertEqual(rows, {e.name: (e.level, e.fields) for e in EVENTS.values()})

    def test_table_is_whole(self) -> None:
        """Every event of the module is in its table."""
        made = [e for e in vars(log_events).values() if isinstance(e, LogEvent)]
        self.assertEqual(sorted(e.name for e in made), sorted(EVENTS))

    def test_every_event_is_used(self) -> None:
        """No event is listed that nothing logs."""
        constants = {n for n, e in vars(log_events).items() if isinstance(e, LogEvent)}
        used = {
            name
            for path in (TOP / "portmapd").rglob("*.py")
            if path.name != "log_events.py"
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (getattr(node, "id", None), getattr(node, "attr", None))
        }
        self.assertEqual(constants - used, set())


class RegistrationTests(SynchronousTestCase):
    """What is logged of registrations."""

    def setUp(self) -> None:
        self.registry = Registry()
        self.clock = Clock()
        self.log = RateLimitedLog(self.clock)
        self.registrations = RegistrationLog(self.registry, self.log)

    def test_services(self) -> None:
        """A service's line says who registered what; so does that of its end."""
        with capturedLogs() as events:
            holder = self.registry.open(Holder(1000, 77))
            self.registry.register(holder.new_service("printer", "631", 0))
            self.registry.map(mapping(200100, 1, "udp", "0.0.0.0.8.1", holder=holder))
            self.registry.close(holder)
        self.assertEqual(
            [(e["event"], formatEvent(e)) for e in events],
            [
                ("service-registered", "printer is registered at 631 by uid 1000, pid 77"),
                (
                    "mapping-set",
                    "program 200100 version 1 on udp is set to 0.0.0.0.8.1 by uid 1000, pid 77",
                ),
                ("service-deregistered", "printer at 631 of uid 1000, pid 77 is gone"),
                (
                    "mapping-unset",
                    "program 200100 version 1 on udp at 0.0.0.0.8.1 is unset by uid 1000, pid 77",
                ),
            ],
        )

    def test_names_are_no_format(self) -> None:
        """What a peer calls its service is not a format for the log."""
        with capturedLogs() as events:
            holder = self.registry.open(Holder(1000, 77))
            self.registry.register(holder.new_service("{pid.__class__}", "631", 0))
        self.assertIn("{pid.__class__} is registered", formatEvent(events[0]))

    def test_kinds_have_bounds_of_their_own(self) -> None:
        """Many events of one kind keep no other kind out of the log, and are counted."""
        with capturedLogs() as events:
            holder = self.registry.open(Holder(1000, 77))
            for number in range(MAX_CHANGES + 5):
                self.registry.register(holder.new_service(f"n{number}", "631", 0))
            for _ in range(MAX_LINES + 7):
                self.log.malformed(remote(), "it is short")
            self.log.close()
        kinds = [e["event"] for e in events]
        self.assertEqual(kinds.count("service-registered"), MAX_CHANGES)
        self.assertEqual(kinds.count("malformed"), MAX_LINES)
        omitted = {e["kind"]: e["count"] for e in events if e["event"] == "omitted"}
        self.assertEqual(omitted, {"service-registered": 5, "malformed": 7})

    def test_full(self) -> None:
        """Services are not followed while there is no line for them, are counted, and are later."""
        with capturedLogs() as events:
            holder = self.registry.open(Holder(1000, 77))
            for number in range(MAX_CHANGES + 5):
                self.registry.register(
                    holder.new_service(f"a{number}", "631", 0),
                    holder.new_service(f"b{number}", "631", 0),
                )
            self.clock.advance(PERIOD)
            self.assertEqual(events[-1]["count"], MAX_CHANGES + 10)
            self.registry.register(holder.new_service("printer", "631", 0))
            self.assertEqual(events[-1]["name"], "printer")
            self.log.close()
            self.registrations.close()
            self.registry.register(holder.new_service("scanner", "631", 0))
        self.assertEqual(events[-1]["name"], "printer")

    def test_reserved_names(self) -> None:
        """Names of the port mapper are not logged, and take no place of those that are."""
        with capturedLogs() as events:
            holder = self.registry.open(Holder(1000, 77))
            for number in range(MAX_CHANGES):
                self.registry.register(holder.new_service(f"n{number}.portmapd", "631", 0))
            self.registry.register(holder.new_service("printer", "631", 0))
            self.log.close()
        self.assertEqual([e.get("name") for e in events], ["printer"])

    def test_omitted_without_another_event(self) -> None:
        """The count of what was left out is told though nothing comes after it."""
        with capturedLogs() as events:
            for _ in range(MAX_LINES + 1):
                self.log.malformed(remote(), "it is short")
            self.clock.advance(61)
        self.assertEqual(events[-1]["event"], "omitted")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CallTests(SynchronousTestCase):
    """What is logged of callers of program 100000."""

    def setUp(self) -> None:
        self.log = RateLimitedLog(Clock())
        self.mapper = PortMapper(report=RegistrationLog(Registry(), self.log).report)

    def said(self, caller: Caller, procedure: int, arguments: bytes) -> list[str]:
        """The lines for one call of version 3."""
        with capturedLogs() as events:
            outcome = self.mapper.dispatch(call(3, procedure, arguments), caller)
            if outcome.refused:
                self.log.refused(caller, outcome.refused)
        return [formatEvent(event) for event in events]

    def test_set(self) -> None:
        """A SET that changes nothing is not logged; others say who set, and moved, what."""
        what = "program 200100 version 1 on udp"
        first = rpcb(200100, 1, "udp", "0.0.0.0.8.1")
        line = f"{what} is set to 0.0.0.0.8.1 by uid 104 over local"
        self.assertEqual(self.said(local(104), 1, first), [line])
        self.assertEqual(self.said(local(104), 1, first), [])
        moved = rpcb(200100, 1, "udp", "0.0.0.0.8.2")
        line = f"{what} is moved from 0.0.0.0.8.1 to 0.0.0.0.8.2 by uid 0 over local"
        self.assertEqual(self.said(local(0), 1, moved), [line])

    def test_refused(self) -> None:
        """What is refused is logged with who asked for it, and why."""
        self.said(local(104), 1, rpcb(200100, 1, "udp", "0.0.0.0.8.1"))
        moved = rpcb(200100, 1, "udp", "0.0.0.0.8.2")
        prefix = "refused for uid 105 over local: SET of program 200100 version 1 on"
        self.assertEqual(
            self.said(local(105), 1, moved),
            [f"{prefix} 'udp' at '0.0.0.0.8.2': 0.0.0.0.8.1 is registered, by owner 104"],
        )
        (line,) = self.said(local(105), 1, rpcb(200100, 1, "tcp9", "0.0.0.0.8.1\n"))
        self.assertTrue(line.startswith(f"{prefix} 'tcp9' at '0.0.0.0.8.1\\n': netid"), line)
        (line,) = self.said(local(105), 2, moved)
        self.assertIn("UNSET of program 200100 version 1 on udp: it is registered by", line)
        self.mapper.bound.add("0.0.0.0.8.1")
        (line,) = self.said(local(104), 1, moved)
        self.assertTrue(line.endswith("0.0.0.0.8.1 is registered, and still bound"), line)

    def test_from_elsewhere(self) -> None:
        """A SET from another host is logged, too."""
        (line,) = self.said(remote(), 1, rpcb(200100, 1, "udp", "0.0.0.0.8.1"))
        self.assertEqual(
            line,
            "refused for 192.0.2.7 port 999 over udp: program 200100 version 1: SET and UNSET are "
            "taken from this host only",
        )

    def test_unset(self) -> None:
        """An UNSET says who removed what; one of nothing says nothing."""
        self.said(local(104), 1, rpcb(200100, 1, "udp", "0.0.0.0.8.1"))
        line = "program 200100 version 1 on udp at 0.0.0.0.8.1 is unset by uid 104 over local"
        everywhere = rpcb(200100, 1)
        self.assertEqual(self.said(local(104), 2, everywhere), [line])
        self.assertEqual(self.said(local(104), 2, everywhere), [])
