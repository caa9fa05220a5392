"""The procedures of programs by their numbers, and the errors of calls to others (RFC 5531, 9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from portmapd.errors import ProcedureUnavailable, ProgramMismatch, ProgramUnavailable
from portmapd.oncrpc.message import Call

P = TypeVar("P")


class ProcedureTable(Generic[P]):
    """The procedures that a server has.

    :param programs: program, then version, then number of each procedure. Each program has a
        version at least.
    """

    def __init__(self, programs: Mapping[int, Mapping[int, Mapping[int, P]]]) -> None:
        self._programs = programs

    def find(self, call: Call) -> P:
        """The procedure that is called.

        :raises ProgramUnavailable: there is no such program.
        :raises ProgramMismatch: there is no such version of it.
        :raises ProcedureUnavailable: the version has no such procedure.
        """
        versions = self._programs.get(call.program)
        if versions is None:
            raise ProgramUnavailable
        procedures = versions.get(call.version)
        if procedures is None:
            raise ProgramMismatch(min(versions), max(versions))
        procedure = procedures.get(call.procedure)
        if procedure is None:
            raise ProcedureUnavailable
        return procedure
