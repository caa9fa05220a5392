"""Hostile clients of the local channel: bounded memory and log, and no harm to others."""

import array
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from portmapd.channel import commands as c
from portmapd.channel.box import MAX_BOX, MAX_PAIRS, MAX_VALUE, encode_box, encode_pairs
from tests.support.namespace import eventually
from tests.support.talk import Served, Talk

BROKEN = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    "rpc": b"\x80\0\0\x28" + bytes(3) + b"\1" + bytes(36),
    "long key": b"\1\0" + b"k" * 256,
    "many pairs": encode_pairs([(b"%d" % number, b"") for number in range(MAX_PAIRS + 1)]),
    "same key": b"\0\1k\0\0" * (MAX_PAIRS + 1),
    "large": encode_pairs([(key, bytes(MAX_VALUE)) for key in (b"a", b"b", b"c")]),
    "endless": (b"\0\1k\xff\xff" + bytes(MAX_VALUE)) * 3,
}
#: The daemon must not grow by more, in bytes. One that keeps what it is sent grows by far more in
#: each of these tests.
BOUND = 30_000_000


@pytest.fixture
def witness(channel: Served) -> Iterator[Talk]:
    """Give a connection that has registered, and check that its registrations remain."""
    with channel.talk() as talk:
        talk.register(("witness", "80", 1))
        talk.set((400001, 1, "tcp", "127.0.0.1.8.1"))
        before = channel.daemon.resident
        yield talk
        assert talk.hello()["version"] == 1
        assert talk.names().count("witness") == 1
        assert talk.mappings()[0][0] == 400001
        assert channel.daemon.resident - before < BOUND


@pytest.mark.parametrize("kind", BROKEN)
def test_broken(channel: Served, witness: Talk, kind: str) -> None:
    """What is not a box, or too large a one, ends that connection and all that it held."""
    with channel.talk() as talk:
        talk.register(("a", "80", 0))
        try:
            talk.send(BROKEN[kind])
        except (BrokenPipeError, ConnectionResetError):
            """It was closed before all of it was there."""
        assert talk.is_closed()
    assert witness.names() == ["witness"]


def test_broken_often(channel: Served, witness: Talk) -> None:
    """A peer that does it all the time gets a few lines in the log, and one with a count."""
    for _ in range(300):
        with channel.talk() as talk:
            talk.send(b"\xff\xff")
            assert talk.is_closed()
    log = (Path(channel.path).parents[1] / "twistd.log").read_text()
    assert 1 <= log.count("malformed message") <= 10
    assert f"uid {os.geteuid()}" in log
    assert f"pid {os.getpid()}" in log
    assert witness.names() == ["witness"]


def test_boxes_that_do_not_end(channel: Served, witness: Talk) -> None:
    """A hundred of the largest boxes, all but their last byte, cost no more than they are."""
    whole = encode_box({b"_command": bytes(MAX_VALUE), b"x" * 255: bytes(MAX_VALUE)})
    assert len(whole) <= MAX_BOX
    with ExitStack() as stack:
        talks = [stack.enter_context(channel.talk()) for _ in range(100)]
        for talk in talks:
            talk.send(whole[:-1])
        witness.hello()
        for talk in talks:
            talk.send(whole[-1:])
            assert talk.hello()["version"] == 1


@pytest.mark.options("--max-services", "1000")
def test_answers_that_nobody_reads(channel: Served, witness: Talk) -> None:
    """For one that does not read its answers none are made, and nothing is read from it."""
    witness.register(*((f"{number}" + "x" * 200, "80", 0) for number in range(200)))
    asked = c.LIST.ask(b"1", {}) * 1_000
    with ExitStack() as stack:
        for _ in range(6):
            assert taken(stack.enter_context(channel.talk()).skt, asked) < MOST
        assert witness.hello()["version"] == 1


#: More than the buffers of both sockets, in bytes.
MOST = 5_000_000


def taken(skt: socket.socket, data: bytes) -> int:
    """How much is taken of *data*, which is sent again and again."""
    skt.settimeout(0.5)
    size = 0
    while size < MOST:
        try:
            size += skt.send(data)
        except TimeoutError:
            break
    return size


@pytest.mark.options("--max-services", "1000")
def test_events_that_nobody_reads(channel: Served, witness: Talk) -> None:
    """For one that does not read its events they wait, up to a limit; then it is told so."""
    services = [(f"{number}" + "x" * 200, "80", 0) for number in range(200)]
    with ExitStack() as stack:
        talks = [stack.enter_context(channel.talk()) for _ in range(20)]
        for talk in talks:
            talk.ask(c.WATCH)
        for _ in range(40):
            witness.register(*services)
            witness.deregister(*((name, port) for name, port, _ in services))
        told = [talk.event() for talk in talks]
        assert told == [("registered", *witness_row(services[0][0]))] * 20
        for talk in talks:
            count = 1
            while talk.event() != ("overflow",):
                count += 1
            assert 500 < count < 40 * 400
        witness.register(("late", "80", 0))
        for talk in talks:
            assert talk.event() == ("registered", *witness_row("late"))


def witness_row(name: str) -> tuple[str, int, int, str, str]:
    """The row of a service of this process."""
    return name, os.geteuid(), os.getpid(), "80", ""


def test_long_commands(channel: Served, witness: Talk) -> None:
    """Unknown commands of 60,000 bytes are answered like others, with a part of their name."""
    box = encode_box({b"_ask": b"1", b"_command": b"x" * 60_000})
    with channel.talk() as talk:
        talk.register(("a", "80", 0))
        for _ in range(300):
            talk.send(box)
            answer = talk.answer()
            assert answer[b"_error_code"] == b"UNKNOWN_COMMAND"
            assert len(answer[b"_error_description"]) < 300
        assert sorted(talk.names()) == ["a", "witness"]
    assert witness.hello()["version"] == 1


def test_long_tags(channel: Served, witness: Talk) -> None:
    """Tags of the largest size come back."""
    tag = b"x" * MAX_VALUE
    with channel.talk() as talk:
        for _ in range(50):
            talk.send(c.UNWATCH.ask(tag, {}))
            assert talk.answer() == {b"_answer": tag}
    assert witness.hello()["version"] == 1


def test_many_watched_names(channel: Served, witness: Talk) -> None:
    """As many names as fit a box can be watched, again and again."""
    with channel.talk() as talk:
        for turn in range(30):
            talk.ask(c.WATCH, names=[f"{turn}.{number}" for number in range(6_000)])
        talk.register(("29.5999", "80", 0))
        assert talk.event()[1] == "29.5999"
    assert witness.hello()["version"] == 1


UNREACHABLE = (b"StartTLS", b"_StartTLS", b"QuitBox", b"ProtocolSwitch", b"Event", b"Overflow")


@pytest.mark.parametrize("name", UNREACHABLE)
def test_internals(channel: Served, witness: Talk, name: bytes) -> None:
    """Twisted's own commands, and the server's, are unknown ones."""
    with channel.talk() as talk:
        talk.register(("a", "80", 0))
        further = {b"tls_localCertificate": b"", b"tls_verifyAuthorities": b"", b"_ask": b"1"}
        talk.send(encode_box({b"_command": name, **further}))
        assert talk.answer()[b"_error_code"] == b"UNKNOWN_COMMAND"
        assert sorted(talk.names()) == ["a", "witness"]
    assert witness.hello()["version"] == 1


def test_odd_boxes(channel: Served, witness: Talk) -> None:
    """Boxes that ask for nothing, or answer what was not asked, are ignored."""
    with channel.talk() as talk:
        talk.register(("a", "80", 0))
        for box in (
            {},
            {b"_answer": b"1"},
            {b"_error": b"1", b"_error_code": b"x", b"_error_description": b"x"},
            {b"_command": b"Nothing"},
            {b"_command": b"Hello", b"version": b"x"},
            {b"_command": b"StartTLS"},
            {b"x" * 255: bytes(MAX_VALUE)},
        ):
            talk.send(encode_box(box) * 20)
            assert talk.hello()["version"] == 1
        assert sorted(talk.names()) == ["a", "witness"]
    assert witness.hello()["version"] == 1


def test_wrong_types(channel: Served, witness: Talk) -> None:
    """Every argument of a wrong type is refused, and the connection stays."""
    with channel.talk() as talk:
        talk.register(("a", "80", 0))
        for command in c.COMMANDS.values():
            for argument in command.arguments:
                for value in (b"\xff", b"\0\5x", b"9" * 65_000, b"\0" * 3, b"-", b"\0\1\xff"):
                    box = {b"_ask": b"1", b"_command": command.key, argument.key: value}
                    talk.send(encode_box(box))
                    assert talk.answer()[b"_error_code"] == b"BAD_ARGUMENTS", (argument, value)
        assert talk.hello()["version"] == 1


def test_passed_descriptors(channel: Served, witness: Talk) -> None:
    """Descriptors that are passed with commands are not kept, wherever in the stream they are."""
    before = channel.daemon.descriptors
    read, write = os.pipe()
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read, write] * 50))]
    with channel.talk() as talk, channel.talk() as broken:
        talk.register(("a", "80", 0))
        for _ in range(50):
            for part in (c.HELLO.ask(b"1", {"version": 1}), c.UNWATCH.ask(b"2", {})):
                talk.skt.sendmsg([part[:7]], passed)
                talk.skt.sendmsg([part[7:]], passed)
                talk.answer()
        assert talk.names() == ["witness", "a"]
        broken.skt.sendmsg([b"\xff\xff"], passed)
        assert broken.is_closed()
        eventually(lambda: channel.daemon.descriptors <= before + 1, "none are kept")
    os.close(read)
    os.close(write)
    eventually(lambda: channel.daemon.descriptors <= before, "its descriptors are closed")
    assert witness.hello()["version"] == 1


def test_coming_and_going(channel: Served, witness: Talk) -> None:
    """A thousand connections later the daemon has as many descriptors as before."""
    before = channel.daemon.descriptors
    for number in range(1_000):
        with channel.talk() as talk:
            if number % 3 == 0:
                talk.send(c.WATCH.ask(b"1", {}))
            elif number % 3 == 1:
                talk.register(("a", "80", 0))
    eventually(lambda: channel.daemon.descriptors <= before, "its descriptors are closed")
    assert witness.names() == ["witness"]


def test_no_descriptors_left(channel: Served, witness: Talk) -> None:
    """Without descriptors for more, those that are connected are served; later more are."""
    most = channel.daemon.descriptors + 10
    before = resource.prlimit(channel.daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(channel.daemon.pid, resource.RLIMIT_NOFILE, (most, before[1]))
    with ExitStack() as stack:
        talks = [stack.enter_context(channel.talk()) for _ in range(30)]
        closed = [talk.is_closed() for talk in talks]
        assert 5 <= closed.count(False) <= 12
        for talk, gone in zip(talks, closed, strict=True):
            assert gone or talk.hello()["version"] == 1
        assert witness.hello()["version"] == 1
    with channel.talk() as talk:
        eventually(lambda: not talk.is_closed(), "there are descriptors again")
