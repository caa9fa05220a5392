"""What both clients give and take."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import portmapd.client
from portmapd import errors
from portmapd.channel.box import Box, BoxReader
from portmapd.channel.commands import MAPPING_ROW, SERVICE_ROW, encode_event
from portmapd.client import aio, blocking, twisted, values
from portmapd.client.values import (
    Change,
    Flags,
    Kind,
    RpcMapping,
    Service,
    change_of,
    mapping_of,
    names_of,
    pids_of,
    service_of,
    user_ids,
)
from portmapd.errors import BadArguments

TOP = Path(__file__).resolve().parents[3]

SERVICE_FIELDS = ("a", 104, 7, "80", "/bin/a")
SERVICE = Service("a", 104, 7, 80, "/bin/a")
MAPPING_FIELDS = (300, 2, "tcp", "0.0.0.0.0.80", "superuser")
MAPPING = RpcMapping(*MAPPING_FIELDS)


def box_of(data: bytes) -> Box:
    """The one box in *data*."""
    (box,) = BoxReader().feed(data)
    return box


class ValueTests(SynchronousTestCase):
    """Rows of the wire, and the values that stand for them."""

    def test_flags(self) -> None:
        """Flags have the numbers of the protocol, and can be combined."""
        self.assertEqual((int(Flags.EXCLUSIVE), int(Flags.PUBLIC)), (1, 2))
        self.assertEqual(Flags.EXCLUSIVE | Flags.PUBLIC, 3)

    def test_service(self) -> None:
        """A port that is a number comes as one; paths, and what is neither, as text."""
        self.assertEqual(service_of(SERVICE_FIELDS), SERVICE)
        for port in ("/run/s", "*", "٨٠", "9" * 5000):
            self.assertEqual(service_of(("a", 1, 2, port, "")).port, port)

    def test_values_are_frozen(self) -> None:
        """They can be in sets, and not be changed."""
        self.assertEqual(len({SERVICE, service_of(SERVICE_FIELDS), MAPPING}), 2)
        self.assertRaises(AttributeError, setattr, SERVICE, "port", 81)

    def test_mapping(self) -> None:
        """A row of a mapping."""
        self.assertEqual(mapping_of(MAPPING_FIELDS), MAPPING)

    def test_changes(self) -> None:
        """Each kind of event, with what it tells of."""
        services: tuple[Kind, ...] = ("registered", "deregistered")
        mappings: tuple[Kind, ...] = ("mapped", "unmapped")
        for kind in services:
            box = box_of(encode_event(kind, SERVICE_ROW, SERVICE_FIELDS))
            self.assertEqual(change_of(box), Change(kind, SERVICE))
        for kind in mappings:
            box = box_of(encode_event(kind, MAPPING_ROW, MAPPING_FIELDS))
            self.assertEqual(change_of(box), Change(kind, MAPPING))

    def test_bad_changes(self) -> None:
        """An event of no kind, of an unknown one, or without a field."""
        whole = box_of(encode_event("registered", SERVICE_ROW, SERVICE_FIELDS))
        for box in (
            {},
            whole | {b"change": b"renamed"},
            whole | {b"change": b"\xff"},
            whole | {b"pid": b"one"},
            {key: value for key, value in whole.items() if key != b"port"},
        ):
            self.assertRaises(BadArguments, change_of, box)


class FilterTests(SynchronousTestCase):
    """What a listing is filtered by."""

    def test_one_or_several(self) -> None:
        """One, several in whatever container, or None for any."""
        self.assertEqual(names_of("ab"), ["ab"])
        self.assertEqual(names_of(n for n in "ab"), ["a", "b"])
        self.assertEqual(pids_of(5), [5])
        self.assertEqual(pids_of({5}), [5])
        self.assertEqual(user_ids((0, 5)), [0, 5])
        self.assertEqual([names_of(None), pids_of(None), user_ids(None)], [None] * 3)

    def test_user_names(self) -> None:
        """Users by name."""
        me = pwd.getpwuid(os.geteuid())
        self.assertEqual(user_ids([me.pw_name, 5]), [me.pw_uid, 5])
        self.assertRaises(BadArguments, user_ids, "no-such-user")

    def test_refused(self) -> None:
        """Nothing but names, numbers, and lists of them; an empty list would be read as any."""
        self.assertRaises(BadArguments, names_of, [])
        self.assertRaises(BadArguments, names_of, [1])
        self.assertRaises(BadArguments, pids_of, "1")
        self.assertRaises(BadArguments, pids_of, True)
        self.assertRaises(BadArguments, user_ids, [None])


class NameTests(SynchronousTestCase):
    """Where applications find it all."""

    def test_same_in_all_clients(self) -> None:
        """All clients have the same values; the package has them, too."""
        for name in ("Change", "Flags", "RpcMapping", "Service"):
            for client in (aio, blocking, twisted, portmapd.client):
                self.assertIs(getattr(client, name), getattr(values, name))
        self.assertIs(portmapd.client.Portmapper, twisted.Portmapper)
        self.assertIs(portmapd.client.errors, errors)

    def test_every_name_is_there(self) -> None:
        """Every name that the package offers can be had; no other."""
        for name in portmapd.client.__all__:
            self.assertIsNotNone(getattr(portmapd.client, name))
        self.assertRaises(AttributeError, getattr, portmapd.client, "Portmapperr")

    def test_asyncio_client_without_twisted(self) -> None:
        """The client for asyncio imports no Twisted."""
        code = (
            "import sys, portmapd.client.aio, portmapd.client.reg_arguments;"
            "print([n for n in sys.modules if n.startswith(('twisted', 'zope.'))])"
        )
        command = [sys.executable, "-c", code]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TOP)
        self.assertEqual(said.stdout.strip(), "[]")

    def test_blocking_client_without_twisted(self) -> None:
        """What the blocking client imports is small, and has no Twisted; it prints its time."""
        code = (
            "import sys, time; start = time.perf_counter(); import portmapd.client.blocking;"
            "print(f'imported in {1000 * (time.perf_counter() - start):.0f} ms', file=sys.stderr);"
            "print(sorted(set(sys.modules)"
            " & {'twisted', 'zope.interface', 'attr', 'click', 'asyncio', 'logging', 'random',"
            " 'ssl', 'ipaddress'}))"
        )
        command = [sys.executable, "-c", code]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TOP)
        print(said.stderr)
        self.assertEqual(said.stdout.strip(), "[]")
