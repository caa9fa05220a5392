"""Mappings that a process holds on the local channel, as RPC callers see and may change them."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portmapd.channel.commands import WATCH
from portmapd.errors import AlreadyRegistered
from portmapd.oncrpc.program import Pmap, Rpcb, encode_pmap, encode_rpcb
from tests.support.daemon import portmapd
from tests.support.exchange import connect_local, results, run_as
from tests.support.namespace import Namespace, eventually
from tests.support.registrant import Registrant
from tests.support.talk import Served, Talk

TCP = (400001, 1, "tcp", "127.0.0.1.8.1")
UDP = (400001, 1, "udp", "0.0.0.0.8.2")
LOCAL = (400001, 1, "local", "/run/s")

root = pytest.mark.skipif(os.geteuid() != 0, reason="to be several users takes root")


def call(path: str, version: int, procedure: int, arguments: bytes) -> int:
    """The number that the rpcbind socket answers with."""
    with connect_local(path) as skt:
        return results(skt, version, procedure, arguments).uint()


def port_of(channel: Served, program: int, protocol: int) -> int:
    """What GETPORT answers."""
    return call(channel.daemon.path, 2, 3, encode_pmap(Pmap(program, 1, protocol, 0)))


def set_port(channel: Served, port: int) -> bool:
    """Ask for another port with SET of version 2."""
    return call(channel.daemon.path, 2, 1, encode_pmap(Pmap(400001, 1, 6, port))) == 1


def unset(channel: Served) -> bool:
    """Ask to remove the program's version with UNSET of version 3."""
    return call(channel.daemon.path, 3, 2, encode_rpcb(Rpcb(400001, 1, "", "", ""))) == 1


def test_getport(channel: Served) -> None:
    """GETPORT answers what a process holds, until it is killed."""
    with channel.registrant() as process, channel.talk() as watching:
        talk = Talk(process.connect())
        with talk:
            watching.ask(WATCH)
            talk.set(TCP, UDP)
            assert [port_of(channel, 400001, number) for number in (6, 17)] == [2049, 2050]
            process.kill()
            assert [watching.event()[0] for _ in range(4)] == ["mapped"] * 2 + ["unmapped"] * 2
            assert [port_of(channel, 400001, number) for number in (6, 17)] == [0, 0]


def test_not_replaced(channel: Served) -> None:
    """SET from elsewhere cannot replace it, not even the superuser's, dead as its port may be."""
    with channel.talk() as talk:
        talk.set(TCP)
        assert set_port(channel, 2049)
        assert not set_port(channel, 2050)
        assert port_of(channel, 400001, 6) == 2049


@root
def test_unset_by_the_superuser(channel: Served) -> None:
    """UNSET from elsewhere removes it only for the superuser; its process can set it again."""
    with channel.registrant(uid=1) as process, Talk(process.connect()) as talk:
        talk.set(TCP, UDP)
        for uid in (1, 2):
            assert not run_as(uid, lambda: unset(channel))
            assert not run_as(uid, lambda: set_port(channel, 2050))
        assert len(talk.mappings()) == 2
        assert unset(channel)
        assert talk.mappings() == []
        talk.set(*((*TCP[:1], version, *TCP[2:]) for version in range(10)))


def test_set_elsewhere(channel: Served) -> None:
    """What callers have set is seen on the channel, and is in the way there."""
    with channel.talk() as talk:
        talk.ask(WATCH)
        assert set_port(channel, 2049)
        owner = str(os.geteuid()) if os.geteuid() else "superuser"
        row = (*TCP[:3], "0.0.0.0.8.1", owner)
        assert talk.event() == ("mapped", *row)
        assert talk.mappings() == [row]
        with pytest.raises(AlreadyRegistered, match=f"owner {owner}"):
            talk.set(UDP, TCP)
        assert unset(channel)
        assert talk.event() == ("unmapped", *row)
        talk.set(UDP, TCP)


@pytest.fixture
def host(namespace: Namespace, tmp_path: Path) -> Iterator[Namespace]:
    """Give a namespace with a daemon that has no options."""
    with portmapd(namespace, tmp_path):
        yield namespace


def shown(host: Namespace) -> list[list[str]]:
    """What rpcinfo shows of the program."""
    rows = [line.split()[:4] for line in host.run("rpcinfo").splitlines() if "400001" in line]
    return sorted(rows)


@pytest.mark.programs("rpcinfo", "setpriv")
def test_rpcinfo(host: Namespace) -> None:
    """rpcinfo shows it until its process is killed; the superuser's rpcinfo can remove it."""
    python = tuple(host.enter(sys.executable))
    with Registrant("/run/portmapd/portmapd.sock", 1, python) as process:
        talk = Talk(process.connect())
        with talk:
            talk.set(TCP, LOCAL)
            rows = [[str(field) for field in row] for row in (LOCAL, TCP)]
            assert shown(host) == rows
            delete = ("rpcinfo", "-d", "400001", "1")
            host.run("setpriv", "--reuid=2", "--clear-groups", *delete, status=None)
            assert shown(host) == rows
            host.run(*delete)
            assert shown(host) == []
            talk.set(TCP)
            assert shown(host) == rows[1:]
            host.run("kill", "-KILL", str(process.pid))
            eventually(lambda: not shown(host), "its mappings are gone")
