"""Requests to etcd, and what comes back, good and bad."""

import math
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import (
    Compacted,
    EtcdError,
    EtcdFull,
    EtcdGarbage,
    EtcdRefused,
    EtcdUnavailable,
    LeaseNotFound,
)
from portmapd.etcd.lines import Lines
from portmapd.etcd.messages import (
    Compare,
    Delete,
    KeyValue,
    Put,
    Range,
    Transaction,
    prefix_end,
    read_changes,
    read_done,
    read_error,
    read_found,
)

HEADER = {"revision": "7"}
#: As etcd 3.4 sends it.
KEY = {"key": "YQ==", "create_revision": "2", "mod_revision": "5", "version": "1", "value": "Yg=="}


class RequestTests(SynchronousTestCase):
    """What is asked."""

    def test_transaction(self) -> None:
        """All parts are as the gateway takes them."""
        asked = Transaction(
            [Compare.changed("a", 0), Compare.leased("a", 9)],
            [Put("a", b"b", 9), Delete("c")],
            [Range("a")],
        ).encode()
        self.assertEqual(
            asked["compare"],
            [
                {"key": "YQ==", "target": "MOD", "result": "EQUAL", "mod_revision": "0"},
                {"key": "YQ==", "target": "LEASE", "result": "EQUAL", "lease": "9"},
            ],
        )
        self.assertEqual(
            asked["success"],
            [
                {"request_put": {"key": "YQ==", "value": "Yg==", "lease": "9"}},
                {"request_delete_range": {"key": "Yw=="}},
            ],
        )
        self.assertEqual(asked["failure"][0]["request_range"]["key"], "YQ==")

    def test_prefix_end(self) -> None:
        """The end of a range is behind every key that begins so."""
        for prefix in ("/portmapd/", "a", "é"):
            end = prefix_end(prefix)
            self.assertGreater(end, f"{prefix}\U0010ffff".encode())
            self.assertEqual((end[:-1], end[-1]), (prefix.encode()[:-1], prefix.encode()[-1] + 1))


class AnswerTests(SynchronousTestCase):
    """What is answered."""

    def test_found(self) -> None:
        """What is left out is zero, or empty."""
        found = read_found({"header": HEADER, "kvs": [KEY, {"key": "Yw=="}], "count": "2"})
        self.assertEqual(found.keys, [KeyValue("a", b"b", 5, 0), KeyValue("c", b"", 0, 0)])
        self.assertEqual((found.revision, found.more), (7, False))
        self.assertEqual(read_found({"header": {}}).keys, [])

    def test_done(self) -> None:
        """The answers to questions are found among those of a transaction."""
        responses = [{"response_put": {}}, {"response_range": {"header": HEADER, "kvs": [KEY]}}]
        done = read_done({"header": HEADER, "succeeded": True, "responses": responses})
        self.assertEqual((done.succeeded, len(done.found)), (True, 1))
        self.assertFalse(read_done({"header": HEADER}).succeeded)

    def test_changes(self) -> None:
        """Values, and what was deleted, in order."""
        events = [{"kv": KEY}, {"type": "DELETE", "kv": {"key": "YQ==", "mod_revision": "6"}}]
        told = read_changes({"result": {"header": HEADER, "events": events}})
        self.assertEqual([key for key, _ in told.changed], ["a", "a"])
        self.assertIsNone(told.changed[1][1])
        self.assertEqual(told.revision, 7)

    def test_end_of_a_watch(self) -> None:
        """A watch that ends says why."""
        ends: list[tuple[dict[str, Any], type[EtcdError]]] = [
            ({"result": {"header": HEADER, "canceled": True, "compact_revision": "6"}}, Compacted),
            ({"result": {"header": HEADER, "canceled": True}}, EtcdRefused),
            ({"error": {"grpc_code": 14, "message": "no leader"}}, EtcdUnavailable),
            ({"result": []}, EtcdGarbage),
            ({"result": {"header": HEADER, "events": [{}]}}, EtcdGarbage),
        ]
        for data, kind in ends:
            self.assertRaises(kind, read_changes, data)

    def test_errors(self) -> None:
        """The code of an error tells its class, and the message is etcd's."""
        for code, message, kind in (
            (5, "etcdserver: requested lease not found", LeaseNotFound),
            (5, "etcdserver: key not found", EtcdRefused),
            (7, "etcdserver: permission denied", EtcdRefused),
            (8, "etcdserver: mvcc: database space exceeded", EtcdFull),
            (11, "etcdserver: mvcc: required revision has been compacted", Compacted),
            (14, "etcdserver: no leader", EtcdUnavailable),
        ):
            error = read_error({"code": code, "message": message})
            self.assertEqual((type(error), str(error)), (kind, message))
        self.assertIsInstance(read_error({"oops": 1}), EtcdGarbage)

    def test_garbage(self) -> None:
        """What is no answer is an error of its own, whatever it is."""
        bad: list[Any] = [
            {},
            {"header": 7},
            {"header": {"revision": "x"}},
            {"header": HEADER, "kvs": {}},
            {"header": HEADER, "kvs": [7]},
            {"header": HEADER, "kvs": [{"key": 7}]},
            {"header": HEADER, "kvs": [{"key": "/w=="}]},
            {"header": HEADER, "kvs": [{"key": "YQ==", "value": "?"}]},
            {"header": HEADER, "kvs": [{"key": "YQ==", "lease": "x"}]},
            {"header": HEADER, "kvs": [{"key": "YQ==", "lease": math.inf}]},
            {"header": {"revision": math.inf}},
        ]
        for data in bad:
            self.assertRaises(EtcdGarbage, read_found, data)
            self.assertRaises(
                EtcdGarbage, read_done, {**data, "responses": [{"response_range": data}]}
            )
        answers = {"header": HEADER, "responses": [{"response_range": 7}]}
        self.assertRaises(EtcdGarbage, read_done, answers)
        self.assertIsInstance(read_error({"code": math.inf, "message": "a"}), EtcdGarbage)


class LinesTests(SynchronousTestCase):
    """A stream of answers, divided."""

    def test_any_pieces(self) -> None:
        """Lines come whole, however they arrive."""
        data = b'{"a": 1}\n\n{"b": 2}\n{"c'
        for size in range(1, len(data)):
            lines = Lines(100)
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            found = [line for piece in pieces for line in lines.feed(piece)]
            self.assertEqual(found, [b'{"a": 1}', b'{"b": 2}'])

    def test_too_long(self) -> None:
        """A line that has no end is refused before it fills the memory."""
        lines = Lines(100)
        list(lines.feed(b"x" * 60))
        self.assertRaises(EtcdGarbage, list, lines.feed(b"x" * 60))
