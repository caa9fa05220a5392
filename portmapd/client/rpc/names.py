"""Hosts by their names: their addresses, and calls over UDP to one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IHostResolution, IReactorTime, IResolutionReceiver
from zope.interface import implementer

from portmapd.client.rpc.datagrams import DatagramTransport
from portmapd.client.rpc.wire import MAX_ADDRESSES, check_size
from portmapd.errors import CallTimedOut, DaemonUnreachable


@implementer(IResolutionReceiver)
class Addresses:
    """Receives the addresses of a name.

    :ivar found: fires with them.
    """

    def __init__(self) -> None:
        self.found: Deferred[list[str]] = Deferred()
        self._hosts: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """There is nothing to do yet."""

    def addressResolved(self, address: Any) -> None:
        """Keep an address, once."""
        if address.host not in self._hosts:
            self._hosts.append(address.host)

    def resolutionComplete(self) -> None:
        """There are no more."""
        self.found.callback(self._hosts[:MAX_ADDRESSES])


class NamedTransport:
    """Calls over UDP to a host whose addresses are found by its name.

    The addresses are tried one after the other, each for its share of the time, until one replies.
    That one is called from then on. When none replies, the next call looks the name up again.

    :param reactor: measures time; it provides IReactorPluggableNameResolver, too.
    :param name: the name of the host.
    :param where: names the server in errors.
    :param make: makes the transport to an address.
    :ivar netid: that of the address that replied last; udp before.
    :ivar host: that address; the name before.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        name: str,
        where: str,
        make: Callable[[str], DatagramTransport],
    ) -> None:
        self.netid = "udp"
        self.host = name
        self._reactor: Any = reactor
        self._name = name
        self._where = where
        self._make = make
        self._transports: dict[str, DatagramTransport] = {}
        self._proven: DatagramTransport | None = None
        self._is_known = False
        self._waiting: list[Deferred[None]] = []

    def call(self, tail: bytes, timeout: float) -> Deferred[bytes]:
        """Make a call; see :meth:`~portmapd.client.rpc.datagrams.DatagramCalls.call`.

        :raises ValueError: the message does not fit a datagram.
        """
        check_size(tail)
        return Deferred.fromCoroutine(self._first_reply(tail, self._reactor.seconds() + timeout))

    async def _first_reply(self, tail: bytes, ends: float) -> bytes:
        timeout = ends - self._reactor.seconds()
        if not self._is_known:
            await self._looked_up(timeout)
        errors: list[Exception] = []
        untried = list(self._transports.values())
        while untried and not (errors and isinstance(errors[-1], CallTimedOut) and self._proven):
            transport = untried.pop(0)
            left = ends - self._reactor.seconds()
            share = left if transport is self._proven else left / (len(untried) + 1)
            try:
                reply = await transport.call(tail, share)
            except (CallTimedOut, DaemonUnreachable) as error:
                if transport.host not in self._transports:
                    raise
                errors.append(error)
            else:
                self._prefer(transport)
                return reply
        self._is_known, self._proven = False, None
        raise self._worst(errors, timeout)

    def _worst(self, errors: list[Exception], timeout: float) -> Exception:
        """What tells best why no address replied: that one was silent, or else the last error."""
        if any(isinstance(error, CallTimedOut) for error in errors):
            return CallTimedOut(f"{self._where} did not answer within {round(timeout, 3):g} s")
        return errors[-1]

    def _prefer(self, transport: DatagramTransport) -> None:
        """Call this address first from now on."""
        self._proven = transport
        self.netid, self.host = transport.netid, transport.host
        self._transports = {transport.host: transport} | self._transports

    def _looked_up(self, timeout: float) -> Deferred[None]:
        """Fires when the addresses are known; one look-up serves all calls that wait for it."""
        known: Deferred[None] = Deferred()
        known.addTimeout(timeout, self._reactor, self._timed_out)
        self._waiting.append(known)
        if len(self._waiting) == 1:
            receiver = Addresses()
            receiver.found.addCallback(self._found)
            self._reactor.nameResolver.resolveHostName(
                receiver, self._name, transportSemantics="UDP"
            )
        return known

    def _timed_out(self, failure: object, timeout: float) -> None:
        raise CallTimedOut(f"the address of {self._name} was not found within {timeout:g} s")

    def _found(self, hosts: list[str]) -> None:
        if not self._waiting:
            return
        before = self._transports
        self._transports = {
            host: before.pop(host) if host in before else self._make(host) for host in hosts
        }
        self._is_known = bool(hosts)
        for transport in before.values():
            transport.close()
        waiting, self._waiting = self._waiting, []
        for known in waiting:
            if hosts:
                known.callback(None)
            else:
                known.errback(self._unknown())

    def _unknown(self) -> DaemonUnreachable:
        return DaemonUnreachable(f"{self._where} cannot be reached: the name has no address")

    def close(self) -> Deferred[None]:
        """End every call under way, and close the sockets."""
        transports, self._transports = self._transports, {}
        waiting, self._waiting = self._waiting, []
        self._is_known, self._proven = False, None
        for known in waiting:
            known.errback(DaemonUnreachable("the client was closed"))
        closed = gatherResults([transport.close() for transport in transports.values()])
        return closed.addCallback(lambda _: None)
