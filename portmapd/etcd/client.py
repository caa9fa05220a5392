"""Asking etcd: each question goes to one member, and to the next one if that does not answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool, ResponseDone
from twisted.web.http import OK
from twisted.web.iweb import IPolicyForHTTPS, IResponse

from portmapd.errors import EtcdError, EtcdGarbage, EtcdRefused, EtcdUnavailable, LeaseNotFound
from portmapd.etcd.lines import Lines
from portmapd.etcd.messages import (
    GARBAGE,
    UNAUTHENTICATED,
    Changes,
    Done,
    Found,
    Json,
    Range,
    Transaction,
    prefix_end,
    read_changes,
    read_done,
    read_error,
    read_found,
)

T = TypeVar("T")

#: Seconds within which a member has to answer, before the next one is asked.
TIMEOUT = 2.0
#: The longest answer, in bytes.
MAX_ANSWER = 33_554_432
#: Keys of a page.
PAGE = 500
#: The most connections to a member that are kept.
CONNECTIONS = 4


class QuietFactory(HTTPConnectionPool._factory):  # type: ignore[misc, valid-type] # Twisted has it
    """Makes connections without a line in the log for each."""

    noisy = False


class EtcdClient:
    """A client of the members of one etcd.

    It tries a question once with each member, the one first that answered last. What it does not
    do is to wait and try again.

    :param reactor: makes connections, and measures time.
    :param members: the URLs of the members, such as ``http://192.0.2.1:2379``.
    :param user: who asks; empty: nobody.
    :param password: of that user.
    :param tls: the certificates of connections; None: those that browsers trust.
    :param timeout: seconds that each member has.
    :ivar silent: why members did not answer when they were asked last, by their URLs.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        members: Sequence[str],
        user: str = "",
        password: str = "",
        tls: IPolicyForHTTPS | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._reactor = reactor
        self._members = [member.rstrip("/") for member in members]
        self._user = user
        self._password = password
        self._timeout = timeout
        self._token = ""
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = CONNECTIONS
        self._pool._factory = QuietFactory
        policy = BrowserLikePolicyForHTTPS() if tls is None else tls
        agent = Agent(reactor, policy, connectTimeout=timeout, pool=self._pool)
        self._http = HTTPClient(agent)
        self.silent: dict[str, str] = {}

    @property
    def members(self) -> Sequence[str]:
        """The URLs of all members, that first which is asked first."""
        return tuple(self._members)

    def pass_over(self, member: str) -> None:
        """Ask that member last: it answers, but cannot be relied upon."""
        self._members.sort(key=lambda each: each == member)

    def close(self) -> Deferred[None]:
        """Close all connections."""
        return cast("Deferred[None]", self._pool.closeCachedConnections())

    # Questions

    async def find(self, question: Range) -> Found:
        """The keys that a question is for.

        :raises EtcdError: they are not known.
        """
        return read_found(await self.ask("kv/range", question.encode()))

    async def pages(self, prefix: str) -> AsyncIterator[Found]:
        """All keys that begin with *prefix*, at one revision, in pages."""
        question = Range(prefix, prefix_end(prefix), PAGE)
        while True:
            found = await self.find(question)
            yield found
            if not found.more or not found.keys:
                return
            revision = question.revision or found.revision
            question = Range(found.keys[-1].key + "\0", question.end, PAGE, revision)

    async def transact(self, transaction: Transaction) -> Done:
        """Do several things at once.

        :raises EtcdUnavailable: it is not known whether they were done.
        """
        return read_done(await self.ask("kv/txn", transaction.encode()))

    async def grant(self, seconds: int) -> int:
        """A new lease for so many seconds."""
        answer = await self.ask("lease/grant", {"TTL": str(seconds)})
        return _number(answer, "ID")

    async def keep_alive(self, lease: int, seconds: float) -> int:
        """Have a lease last as long as at its beginning.

        :param seconds: that each member has for it.
        :return: for how many seconds.
        :raises LeaseNotFound: it has ended.
        """
        return await self._each(lambda member: self._keep_alive(member, lease, seconds))

    async def _keep_alive(self, member: str, lease: int, seconds: float) -> int:
        asked = self._ask(member, "lease/keepalive", {"ID": str(lease)})
        answer = await self._within(member, Deferred.fromCoroutine(asked), seconds)
        kept = answer.get("result")
        if not isinstance(kept, dict):
            raise EtcdGarbage("etcd keeps a lease alive and does not say for how long")
        left = _number(kept, "TTL") if "TTL" in kept else 0
        if not left:
            raise LeaseNotFound(f"lease {lease:x} has ended")
        return left

    async def revoke(self, lease: int) -> None:
        """End a lease, with all keys that are under it."""
        await self.ask("lease/revoke", {"ID": str(lease)})

    async def status(self, member: str) -> bool:
        """Whether that member has a leader.

        :raises EtcdError: it does not answer.
        """
        answer = await self._ask(member, "maintenance/status", {})
        return bool(answer.get("leader", "0") != "0")

    async def watch(self, prefix: str, revision: int, told: Callable[[Changes], object]) -> Watch:
        """Watch all keys that begin with *prefix*.

        :param revision: the first one whose changes are told.
        :param told: is called with changes.
        """
        question = {
            "key": Range(prefix).encode()["key"],
            "range_end": Range("", prefix_end(prefix)).encode()["range_end"],
            "start_revision": str(revision),
        }
        body = {"create_request": question}
        return await self._each(lambda member: self._watch(member, body, told))

    async def _watch(self, member: str, body: Json, told: Callable[[Changes], object]) -> Watch:
        response = await self._post(member, "watch", body)
        return Watch(member, response, told)

    # Members

    async def ask(self, path: str, body: Json) -> Json:
        """The answer of a member.

        :raises EtcdUnavailable: none answers.
        :raises EtcdError: one answers with an error.
        """
        return await self._each(lambda member: self._ask(member, path, body))

    async def _each(self, ask: Callable[[str], Awaitable[T]]) -> T:
        why: EtcdError = EtcdUnavailable("there is no member")
        for member in self.members:
            try:
                answer = await ask(member)
            except (EtcdUnavailable, EtcdGarbage) as error:
                self.silent[member] = str(error)
                self.pass_over(member)
                why = error
            else:
                self.silent.pop(member, None)
                return answer
        raise why

    async def _ask(self, member: str, path: str, body: Json) -> Json:
        response = await self._post(member, path, body)
        return await self._read(member, response)

    async def _post(self, member: str, path: str, body: Json, *, again: bool = True) -> IResponse:
        """The response of a member, with no error in it."""
        if self._user and not self._token and path != "auth/authenticate":
            await self._authenticate(member)
        response: IResponse = await self._within(member, self._request(member, path, body))
        if response.code == OK:
            return response
        answer = await self._read(member, response)
        if answer.get("code") == UNAUTHENTICATED and self._user and again:
            self._token = ""
            return await self._post(member, path, body, again=False)
        raise read_error(answer)

    def _request(self, member: str, path: str, body: Json) -> Deferred[Any]:
        headers: dict[str | bytes, str | bytes] = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = self._token
        return cast(
            "Deferred[Any]",
            self._http.post(
                f"{member}/v3/{path}",
                data=json.dumps(body).encode(),
                headers=headers,
                allow_redirects=False,
            ),
        )

    async def _authenticate(self, member: str) -> None:
        asked = {"name": self._user, "password": self._password}
        answer = await self._read(member, await self._post(member, "auth/authenticate", asked))
        token = answer.get("token")
        if not isinstance(token, str) or not token.isprintable():
            raise EtcdRefused(f"etcd gives user {self._user} no token")
        self._token = token

    async def _read(self, member: str, response: IResponse) -> Json:
        lines, pieces = Lines(MAX_ANSWER), list[bytes]()

        def take(data: bytes) -> None:
            lines.count(data)
            pieces.append(data)

        body = Body(take)
        response.deliverBody(body)
        try:
            await self._within(member, body.ended)
        except BaseException:
            body.close()
            raise
        return _object(member, b"".join(pieces))

    async def _within(self, member: str, asked: Deferred[T], seconds: float | None = None) -> T:
        """What a member answers in time; errors of any kind are ours."""

        def late(_: object, seconds: float) -> T:
            raise EtcdUnavailable(f"{member} does not answer within {seconds:.3g} s")

        try:
            return await asked.addTimeout(seconds or self._timeout, self._reactor, late)
        except (EtcdError, CancelledError):
            raise
        except Exception as error:
            raise EtcdUnavailable(f"{member} cannot be asked: {_reason(error)}") from error


class Body(Protocol):
    """The body of a response, as it comes.

    :param take: is called with what has come; it may raise an :exc:`~portmapd.errors.EtcdError`.
    :ivar ended: fires when all has come, or fails.
    """

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if self.ended.called:
            return
        try:
            self._take(data)
        except EtcdError as error:
            self._end(Failure(error))
            self.close()

    def connectionLost(self, reason: Failure | None = None) -> None:
        is_whole = reason is None or reason.check(ResponseDone)
        self._end(None if is_whole else reason)

    def close(self) -> None:
        """Close the connection."""
        if self.transport is not None:
            self.transport.loseConnection()

    def _end(self, failure: Failure | None) -> None:
        if not self.ended.called:
            if failure is None:
                self.ended.callback(None)
            else:
                self.ended.errback(failure)


class Watch:
    """A watch that goes on until it is closed, or breaks.

    :param member: the URL of the member that it is of.
    :param told: is called with changes.
    :ivar ended: fires with the reason when it has ended; with None if it was closed.
    """

    def __init__(self, member: str, response: IResponse, told: Callable[[Changes], object]) -> None:
        self.member = member
        self.ended: Deferred[EtcdError | None] = Deferred()
        self._told = told
        self._lines = Lines(MAX_ANSWER)
        self._body = Body(self._take)
        self._body.ended.addCallbacks(self._is_over, self._has_failed)
        response.deliverBody(self._body)

    def close(self, why: EtcdError | None = None) -> None:
        """End it.

        :param why: the reason.
        """
        self._end(why)
        self._body.close()

    def _take(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            changes = read_changes(_object(self.member, line))
            if not self.ended.called:
                self._told(changes)

    def _is_over(self, _: object) -> None:
        self._end(EtcdUnavailable(f"{self.member} has ended the watch"))

    def _has_failed(self, failure: Failure) -> None:
        error = failure.value or EtcdUnavailable("nothing is known")
        if not isinstance(error, EtcdError):
            error = EtcdUnavailable(f"{self.member} has broken the watch: {_reason(error)}")
        self._end(error)

    def _end(self, why: EtcdError | None) -> None:
        if not self.ended.called:
            self.ended.callback(why)


def _object(member: str, data: bytes) -> Json:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise EtcdGarbage(f"{member} does not answer as etcd does")
    return value


def _number(answer: Json, name: str) -> int:
    try:
        return int(answer[name])
    except GARBAGE:
        raise EtcdGarbage(f"etcd's answer has no {name}") from None


def _reason(error: BaseException) -> str:
    """What an error of a connection says, in a few words."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return _reason(reasons[0].value)
    return str(error).rstrip(".") or type(error).__name__
