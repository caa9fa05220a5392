"""What a row of the dispatch table is made of."""

from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper.callit import ForwardedCall
from portmapd.portmapper.context import Context, Request
from portmapd.portmapper.statistics import Lookup


@frozen
class Results:
    """The results of a procedure.

    :param body: the results, encoded.
    :param subject: what was looked up; None for procedures that look nothing up.
    :param success: whether it was found, or done.
    :param rest: further parts of the results, each made when it is asked for; None: there are none.
    """

    body: bytes = b""
    subject: Lookup | None = None
    success: bool = True
    rest: Iterator[bytes] | None = None


@frozen
class Procedure:
    """A row of the dispatch table.

    :param decode: reads the arguments; it may raise :exc:`~portmapd.errors.XdrError`.
    :param operate: serves a request with its arguments. It may raise
        :exc:`~portmapd.errors.CallRefused` or :exc:`~portmapd.portmapper.callit.NoReply`; that of
        SET and UNSET :exc:`~portmapd.errors.Refusal`, whose result is FALSE.
    :param cacheable: whether the same request gets the same reply until a mapping changes.
    :param least: gives the least size that the results have now, in bytes. Where a reply of that
        size may not be sent, nothing is operated: to encode a list takes long. None: the results
        are made at once.
    """

    decode: Callable[[Reader], Any]
    operate: Callable[[Context, Request, Any], Results | ForwardedCall]
    cacheable: bool = True
    least: Callable[[Context], int] | None = None


def null(context: Context, request: Request, arguments: None) -> Results:
    """Do nothing: the reply says that the version is served."""
    return Results()
