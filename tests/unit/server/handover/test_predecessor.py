"""The process whose place another one takes, with other processes that are real."""

import gc
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import HandoverFailed
from portmapd.server.handover.image import encode_image
from portmapd.server.handover.passed import Descriptors
from portmapd.server.handover.predecessor import (
    START,
    CommandLine,
    IHandoverReactor,
    Predecessor,
)

#: No step of another process takes longer, in seconds.
PATIENCE = 30.0
#: A process that takes a place, up to the word that a test is about.
FOUND = """
import os, sys
from portmapd.server.handover.successor import Successor
successor = Successor.find(os.environ)
"""
RECEIVED = f"{FOUND}taken = successor.receive()\nassert os.read(taken.received.take(0), 9) == b''\n"
PREPARED = f"{RECEIVED}successor.prepared()\nprint('heard', file=sys.stderr)\n"
SERVING = f"{PREPARED}successor._talk.send('serving')\n"


@define
class Host:
    """What is handed over: a pipe.

    :ivar why: why this process goes on.
    :ivar left: the status of the process that has the place.
    """

    descriptor: int
    why: list[str] = field(factory=list)
    left: list[int] = field(factory=list)

    def settle(self) -> Deferred[None]:
        """Nothing is under way."""
        return succeed(None)

    def pass_on(self, descriptors: Descriptors) -> Mapping[str, Any]:
        """The descriptor."""
        return {"place": descriptors.add(self.descriptor)}

    def go_on(self, why: str) -> None:
        """Note why."""
        self.why.append(why)

    def leave(self, process: subprocess.Popen[bytes]) -> None:
        """Note how who serves has ended."""
        self.left.append(process.wait(PATIENCE))


class PredecessorTests(SynchronousTestCase):
    """Hand-overs."""

    def setUp(self) -> None:
        read, write = os.pipe()
        os.close(write)
        self.addCleanup(os.close, read)
        self.host = Host(read)
        self.reactor = MemoryReactorClock()

    def predecessor(self, *words: str) -> Predecessor:
        """A process that starts that command."""
        command = CommandLine(words, None)
        return Predecessor(cast("IHandoverReactor", self.reactor), command, self.host)

    def run_python(self, code: str) -> Predecessor:
        """Have another process run that code, and the reactor until it has said something."""
        predecessor = self.predecessor(sys.executable, "-c", code)
        predecessor.begin()
        (reader,) = self.reactor.getReaders()
        self.assertTrue(select.select([reader], [], [], PATIENCE)[0])
        reader.doRead()
        self.assertFalse(predecessor.is_under_way)
        return predecessor

    def fails(self, code: str, why: str) -> None:
        """Assert that a process with that code does not take the place, and why."""
        self.run_python(code)
        self.assertEqual(self.host.left, [])
        (said,) = self.host.why
        self.assertRegex(said, why)
        self.assertEqual(self.reactor.getReaders(), [])

    def test_taken(self) -> None:
        """A process that serves has the place."""
        self.run_python(SERVING)
        self.assertEqual(self.host.why, [])
        self.assertEqual(self.host.left, [0])
        # A real host would have ended with what is open.
        gc.collect()
        self.flushWarnings()

    def test_cannot_be_started(self) -> None:
        """There is no such program."""
        self.predecessor("/nowhere/portmapd").begin()
        self.assertRegex(self.host.why[0], "/nowhere/portmapd cannot be started: .* No such file")

    def test_never_ready(self) -> None:
        """A process that is not ready in time is ended."""
        predecessor = self.predecessor("sleep", "60")
        predecessor.begin()
        self.reactor.advance(START)
        self.assertEqual(self.host.why, ["the new process is not ready after 10 s"])
        self.assertFalse(predecessor.is_under_way)

    def test_abandoned(self) -> None:
        """This process ends before the other one is ready."""
        predecessor = self.predecessor("sleep", "60")
        predecessor.begin()
        predecessor.abandon()
        self.assertEqual(self.host.why, ["this process is about to end"])
        self.assertEqual(self.reactor.getReaders(), [])

    def test_ends_at_the_start(self) -> None:
        """What the process said last tells why."""
        self.fails("import nothing_at_all", "has ended: ModuleNotFoundError: No module named")

    def test_other_version(self) -> None:
        """A process that cannot read the image is not given it."""
        code = f"{FOUND}successor._talk.limit(9)\nsuccessor._talk.send('ready', b'7 8')\n"
        self.fails(code, "reads images of version 7 8, and this one writes version 1: stop")

    def test_refuses(self) -> None:
        """A process that cannot serve says why."""
        code = f"{RECEIVED}with successor.or_fail(): raise ValueError('no port')"
        self.fails(code, "^ValueError: no port$")

    def test_ends_before_it_serves(self) -> None:
        """A process that ends at the last moment does not take the place."""
        self.fails(PREPARED, "the other process has ended: heard|the other process has ended$")

    def start(self, code: str) -> Any:
        """Start a process with that code, outside of a hand-over."""
        child = CommandLine((sys.executable, "-c", code), None).start(os.environ)
        self.addCleanup(child.end)
        child.talk.limit(PATIENCE)
        child.talk.expect("ready")
        child.talk.send("image", encode_image({}), [self.host.descriptor])
        child.talk.expect("prepared")
        return child

    def test_killed_before_it_says_go(self) -> None:
        """If the process that serves is killed, the other one serves: it has everything."""
        child = self.start(f"{PREPARED}sys.exit(7)")
        child.talk.close()
        self.assertEqual(child.process.wait(PATIENCE), 7)

    def test_watchdog(self) -> None:
        """The number of this process, whose watchdog a manager has set, is not passed on."""
        code = f"{FOUND}sys.exit(str(sorted(n for n in os.environ if n[:8] == 'WATCHDOG')))"
        environ = {**os.environ, "WATCHDOG_PID": "1", "WATCHDOG_USEC": "2"}
        child = CommandLine((sys.executable, "-c", code), None).start(environ)
        child.process.wait(PATIENCE)
        self.assertEqual(child.end(), "['WATCHDOG_USEC']")

    def test_go_is_not_said(self) -> None:
        """A process that is told something else ends, and nobody's sockets with it."""
        code = f"{RECEIVED}with successor.or_fail(): successor.prepared()"
        child = self.start(code)
        child.talk.send("else")
        with self.assertRaisesRegex(HandoverFailed, "says 'else', not 'go'"):
            child.talk.expect("serving")
