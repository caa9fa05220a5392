"""Programs: what a server serves, as tables of procedures."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred

from portmapd.oncrpc.table import ProcedureTable
from portmapd.oncrpc.types import VOID, Type
from portmapd.portmapper.context import Request

A = TypeVar("A")
R = TypeVar("R")

#: Every number is one of so many bits.
_BITS = 32


def _check_number(what: str, value: int) -> None:
    if not 0 <= value < 1 << _BITS:
        raise ValueError(f"{what} is {value}, which does not fit {_BITS} bits")


@frozen
class Procedure(Generic[A, R]):
    """A procedure of a program.

    :param name: its name, for the log.
    :param number: its number within the program's version, 0 to 2^32-1.
    :param arguments: the type of its arguments.
    :param results: the type of its results.
    :param handle: is called with the arguments and the
        :class:`~portmapd.portmapper.context.Request`. It returns the results, or a Deferred or a
        coroutine that gives them. It may raise a :exc:`~portmapd.errors.CallRefused`, which becomes
        the reply; any other exception is logged, and the caller gets SYSTEM_ERR.
    """

    name: str
    number: int
    arguments: Type[A]
    results: Type[R]
    handle: Callable[[A, Request], R | Deferred[R] | Coroutine[Any, Any, R]]

    def __attrs_post_init__(self) -> None:
        _check_number(f"the number of procedure {self.name}", self.number)


#: Procedure 0, which every program has: it does nothing (RFC 5531, 12).
NULL = Procedure("NULL", 0, VOID, VOID, lambda arguments, request: None)


class Program:
    """A version of an RPC program.

    :param name: its name, for people.
    :param number: its number; those from 0x20000000 to 0x3fffffff are free to be used
        (RFC 5531, 8.4).
    :param version: the number of the version.
    :param procedures: its procedures; procedure 0 need not be among them.
    :ivar procedures: its procedures, by their numbers.
    :raises ValueError: a number does not fit 32 bits, or two procedures have the same.
    """

    def __init__(
        self, name: str, number: int, version: int, *procedures: Procedure[Any, Any]
    ) -> None:
        _check_number(f"the number of program {name}", number)
        _check_number(f"the version of program {name}", version)
        self.name = name
        self.number = number
        self.version = version
        self.procedures: dict[int, Procedure[Any, Any]] = {NULL.number: NULL}
        self.procedures |= {each.number: each for each in procedures}
        if len({each.number for each in procedures}) < len(procedures):
            raise ValueError(f"program {name} has two procedures of one number")

    def __repr__(self) -> str:
        return f"<{self.name}, program {self.number} version {self.version}>"


def table_of(programs: Iterable[Program]) -> ProcedureTable[Procedure[Any, Any]]:
    """The procedures of *programs* by their numbers.

    :raises ValueError: there are no programs, or a version is there twice.
    """
    table: dict[int, dict[int, dict[int, Procedure[Any, Any]]]] = {}
    for program in programs:
        versions = table.setdefault(program.number, {})
        if program.version in versions:
            raise ValueError(f"program {program.number} version {program.version} is there twice")
        versions[program.version] = program.procedures
    if not table:
        raise ValueError("a server without programs: give one")
    return ProcedureTable(table)
