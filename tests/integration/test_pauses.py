"""Services that close their listeners for a while, of several users, and the running daemon."""

import os
import socket
import time
from pathlib import Path

import pytest

from portmapd.oncrpc.program import Pmap, encode_pmap
from portmapd.registry.mapping import mapping
from tests.support.exchange import connect_local, results
from tests.support.host import Daemon, daemon
from tests.support.namespace import eventually
from tests.unit.server.test_bound_sockets import TCP, UDP, opened
from tests.unit.server.test_liveness import PauseTestCase, address

root = pytest.mark.skipif(os.geteuid() != 0, reason="to be several users takes root")
#: A service is registered again, or found gone, within so many seconds.
SOON = 2.0


@root
class UserTests(PauseTestCase):
    """Whose a service is decides who may have its mapping again."""

    def test_owners(self) -> None:
        """The owner of a mapping, and the user whose service it was, have it again; no other."""
        for owner, user, back, others in (
            ("superuser", 0, (0,), (104,)),
            ("superuser", 105, (0, 105), (104,)),
            ("104", 104, (104,), (0, 105)),
            ("104", 0, (0, 104), (105,)),
            ("unknown", 105, (105,), (0, 104)),
        ):
            for uid, expected in (*((uid, True) for uid in back), *((u, False) for u in others)):
                found, where = self.pause(owner, user)
                with self.bound(where, user=uid):
                    self.look(2)
                    self.assertEqual(self.rows() == [found], expected, (owner, user, uid))
                self.look()
                self.registry.forget(found)

    def test_another_user_in_between(self) -> None:
        """While another user has the address, it is not answered; when the user is back, it is."""
        found, where = self.pause()
        with self.bound(where, user=104):
            self.look(2)
            self.assertEqual(self.rows(), [])
            with self.bound(where, user=0):
                self.look()
                self.assertEqual(self.rows(), [found])
            self.look()
            self.assertEqual((self.rows(), self.suspended()), ([], [found]))

    def test_another_user_between_two_looks(self) -> None:
        """A user who binds the address as soon as it is free has not got the mapping, either."""
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
            self.look()
            where = skt.getsockname()
        with self.bound(where, user=104):
            self.look()
            self.assertEqual((self.rows(), len(self.suspended())), ([], 1))

    def test_another_user_beside(self) -> None:
        """A user who shares the address gains nothing when its service ends."""
        with opened(UDP, "127.0.0.1") as first:
            where = first.getsockname()
        with self.bound(where) as skt:
            self.map("udp", address("0.0.0.0", skt))
            self.look()
            with self.bound(where, user=104):
                self.look()
                self.assertEqual(len(self.rows()), 1)
                skt.close()
                self.look()
                self.assertEqual(self.rows(), [])

    def test_set_again_for_another_user(self) -> None:
        """A mapping that its owner sets again is that of whoever has the address then."""
        with opened(UDP, "127.0.0.1") as skt:
            self.registry.map(mapping(7, 1, "udp", address("0.0.0.0", skt), "unknown"))
            self.look()
            where = skt.getsockname()
        with self.bound(where, user=104):
            self.registry.confirm(*self.rows())
            self.look(3)
            self.assertEqual(len(self.rows()), 1)
        self.look()
        self.assertEqual((self.rows(), len(self.suspended())), ([], 1))


def ask(running: Daemon, procedure: int, port: int = 0, protocol: int = 17) -> int:
    """The result of a procedure of version 2 about program 200100."""
    with connect_local(running.path) as skt:
        arguments = encode_pmap(Pmap(200100, 1, protocol, port))
        return results(skt, 2, procedure, arguments).uint()


def soon(running: Daemon, port: int, protocol: int = 17) -> None:
    """Wait until that port is the reply to GETPORT; it must be in time."""
    started = time.monotonic()
    eventually(lambda: ask(running, 3, protocol=protocol) == port, f"GETPORT gives {port}")
    assert time.monotonic() - started < SOON + 0.5


@pytest.mark.parametrize(("kind", "protocol"), [(UDP, 17), (TCP, 6)])
def test_pause(tmp_path: Path, kind: socket.SocketKind, protocol: int) -> None:
    """A service that is busy with its listener closed keeps its registration."""
    with daemon(tmp_path) as running:
        with opened(kind, "127.0.0.1") as skt:
            where = skt.getsockname()
            assert ask(running, 1, where[1], protocol) == 1
        soon(running, 0, protocol)
        time.sleep(0.5)
        with socket.socket(socket.AF_INET, kind) as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(where)
            if kind is TCP:
                again.listen()
            soon(running, where[1], protocol)
        soon(running, 0, protocol)
        assert ask(running, 2) == 1
    said = (tmp_path / "twistd.log").read_text()
    line = f"program 200100 version 1 on {'udp' if protocol == 17 else 'tcp'} at 0.0.0.0."
    for told in ("is not answered", "is answered again"):
        assert [row for row in said.splitlines() if line in row and told in row], said


def test_forget(tmp_path: Path) -> None:
    """``--forget`` says for how long it is remembered."""
    with daemon(tmp_path, "--forget", "0.5", "--liveness", "0.1") as running:
        with opened(UDP, "127.0.0.1") as skt:
            where = skt.getsockname()
            assert ask(running, 1, where[1]) == 1
        soon(running, 0)
        time.sleep(1.0)
        with socket.socket(socket.AF_INET, UDP) as again:
            again.bind(where)
            time.sleep(0.5)
            assert ask(running, 3) == 0
    assert "is forgotten" in (tmp_path / "twistd.log").read_text()


def test_off(tmp_path: Path) -> None:
    """With ``--liveness off``, a mapping stays as long as nobody unsets it."""
    with daemon(tmp_path, "--liveness", "off") as running:
        with opened(UDP, "127.0.0.1") as skt:
            port = skt.getsockname()[1]
            assert ask(running, 1, port) == 1
        time.sleep(SOON)
        assert ask(running, 3) == port
        assert ask(running, 2) == 1
        assert ask(running, 3) == 0
