"""Requests to etcd, and its answers, as values and as JSON.

As in all JSON of protocol buffers, bytes are base64, 64-bit numbers are text, and what is zero or
empty is left out (etcd's ``rpc.proto``, and the mapping of proto3 to JSON).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from portmapd.errors import (
    Compacted,
    EtcdError,
    EtcdFull,
    EtcdGarbage,
    EtcdRefused,
    EtcdUnavailable,
    LeaseNotFound,
)

Json = dict[str, Any]


def _bytes(data: str | bytes) -> str:
    return b64encode(data.encode() if isinstance(data, str) else data).decode()


def prefix_end(prefix: str) -> bytes:
    """The end of the range of all keys that begin with *prefix*, which is not empty."""
    data = prefix.encode().rstrip(b"\xff")
    return data[:-1] + bytes([data[-1] + 1])


@frozen
class KeyValue:
    """A key of etcd.

    :param revision: that of its last change.
    :param lease: the lease under which it is; 0: it has none.
    """

    key: str
    value: bytes
    revision: int
    lease: int


@frozen
class Range:
    """A question for one key, or for all keys from *key* up to *end*.

    :param end: exclusive; empty: the one key.
    :param limit: how many keys; 0: all.
    :param revision: at which revision; 0: at the newest.
    """

    key: str
    end: bytes = b""
    limit: int = 0
    revision: int = 0

    def encode(self) -> Json:
        """As a request."""
        return {
            "key": _bytes(self.key),
            "range_end": _bytes(self.end),
            "limit": str(self.limit),
            "revision": str(self.revision),
        }

    def operation(self) -> Json:
        """As a part of a transaction."""
        return {"request_range": self.encode()}


@frozen
class Put:
    """A key that is to have a value.

    :param lease: the lease under which it is to be; 0: it has none.
    """

    key: str
    value: bytes = field(repr=False)
    lease: int = 0

    def operation(self) -> Json:
        """As a part of a transaction."""
        fields = {"key": _bytes(self.key), "value": _bytes(self.value), "lease": str(self.lease)}
        return {"request_put": fields}


@frozen
class Delete:
    """A key that is not to be there."""

    key: str

    def operation(self) -> Json:
        """As a part of a transaction."""
        return {"request_delete_range": {"key": _bytes(self.key)}}


Operation = Range | Put | Delete


@frozen
class Compare:
    """What has to be true of a key.

    :param target: ``MOD`` or ``LEASE``.
    :param value: what that is to be equal to; 0, too, if there is no such key.
    """

    key: str
    target: str
    value: int

    @classmethod
    def changed(cls, key: str, revision: int) -> Compare:
        """The key was changed for the last time at that revision; 0: there is none."""
        return cls(key, "MOD", revision)

    @classmethod
    def leased(cls, key: str, lease: int) -> Compare:
        """The key is under that lease."""
        return cls(key, "LEASE", lease)

    def encode(self) -> Json:
        """As a part of a transaction."""
        name = {"MOD": "mod_revision", "LEASE": "lease"}[self.target]
        return {
            "key": _bytes(self.key),
            "target": self.target,
            "result": "EQUAL",
            name: str(self.value),
        }


@frozen
class Transaction:
    """Operations that are done at once: some if everything compared is true, others if not."""

    compares: Sequence[Compare] = ()
    success: Sequence[Operation] = ()
    failure: Sequence[Operation] = ()

    def encode(self) -> Json:
        """As a request."""
        return {
            "compare": [each.encode() for each in self.compares],
            "success": [each.operation() for each in self.success],
            "failure": [each.operation() for each in self.failure],
        }


@frozen
class Found:
    """The answer to a :class:`Range`.

    :param revision: the newest one of etcd.
    :param more: whether there are more keys than the limit.
    """

    keys: Sequence[KeyValue]
    revision: int
    more: bool


@frozen
class Done:
    """The answer to a :class:`Transaction`.

    :param succeeded: whether everything compared was true.
    :param revision: the newest one of etcd.
    :param found: the answers to the questions among its operations.
    """

    succeeded: bool
    revision: int
    found: Sequence[Found]


@frozen
class Changes:
    """What a watch tells.

    :param changed: the keys in the order of their changes, each as it is; None: it was deleted.
    :param revision: the newest one.
    """

    changed: Sequence[tuple[str, KeyValue | None]]
    revision: int


#: What reading an answer raises that is none.
GARBAGE = (KeyError, TypeError, ValueError, OverflowError, AttributeError)


def read_key(data: Json) -> KeyValue:
    """Read a key.

    :raises EtcdGarbage: it is none.
    """
    try:
        return KeyValue(
            b64decode(data["key"], validate=True).decode(),
            b64decode(data.get("value", ""), validate=True),
            int(data.get("mod_revision", 0)),
            int(data.get("lease", 0)),
        )
    except GARBAGE as error:
        raise EtcdGarbage(f"etcd answers with what is no key: {error!r}") from error


def read_found(data: Json) -> Found:
    """Read the answer to a :class:`Range`.

    :raises EtcdGarbage: it is none.
    """
    keys = [read_key(each) for each in _list(data, "kvs")]
    return Found(keys, read_revision(data), bool(data.get("more")))


def read_done(data: Json) -> Done:
    """Read the answer to a :class:`Transaction`.

    :raises EtcdGarbage: it is none.
    """
    answers = [each.get("response_range") for each in _list(data, "responses")]
    found = [read_found(each) for each in answers if each is not None]
    return Done(bool(data.get("succeeded")), read_revision(data), found)


def read_changes(data: Json) -> Changes:
    """Read what a watch tells.

    :raises EtcdGarbage: it is none of that.
    :raises Compacted: what was to be told is not known any more.
    :raises EtcdRefused: the watch has ended.
    """
    if isinstance(data.get("error"), dict):
        error = data["error"]
        raise read_error({"code": error.get("grpc_code", 0), "message": error.get("message", "")})
    result = data.get("result")
    if not isinstance(result, dict):
        raise EtcdGarbage("etcd's watch tells what is no change")
    if "compact_revision" in result:
        raise Compacted(f"etcd has forgotten what was before revision {result['compact_revision']}")
    if result.get("canceled"):
        raise EtcdRefused(f"etcd has ended the watch: {result.get('cancel_reason', 'no reason')}")
    changed = [_read_event(each) for each in _list(result, "events")]
    return Changes(changed, read_revision(result))


def _read_event(data: Json) -> tuple[str, KeyValue | None]:
    kv = data.get("kv")
    if not isinstance(kv, dict):
        raise EtcdGarbage("etcd's watch tells of a change without a key")
    key = read_key(kv)
    return key.key, None if data.get("type") == "DELETE" else key


def read_revision(data: Json) -> int:
    """The revision in the header of an answer.

    :raises EtcdGarbage: it has none.
    """
    try:
        return int(data["header"].get("revision", 0))
    except GARBAGE as error:
        raise EtcdGarbage("etcd's answer has no header") from error


def _list(data: object, name: str) -> list[Json]:
    found = data.get(name, []) if isinstance(data, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise EtcdGarbage(f"etcd's answer has {name} that are no list")
    return found


#: What the codes of errors mean (``google.rpc.Code``); others are refusals.
_CODES: Mapping[int, type[EtcdError]] = {
    4: EtcdUnavailable,
    5: LeaseNotFound,
    8: EtcdFull,
    11: Compacted,
    14: EtcdUnavailable,
}
#: The code of a caller whom etcd does not know, or no longer.
UNAUTHENTICATED = 16


def read_error(data: Json) -> EtcdError:
    """The error that an answer carries."""
    try:
        code, message = int(data.get("code", 0)), str(data["message"])[:300]
    except GARBAGE:
        return EtcdGarbage("etcd answers with an error that says nothing")
    kind = _CODES.get(code, EtcdRefused)
    if kind is LeaseNotFound and "lease" not in message:
        kind = EtcdRefused
    return kind(message)
