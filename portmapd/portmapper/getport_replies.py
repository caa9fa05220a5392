"""The commonest question, GETPORT of version 2 without credentials, answered from the registry.

Its answer has but a port in it, so that one answer for each port serves all who ask, of whichever
program: there may be more programs than answers can be kept, and mappings may change faster.
"""

from struct import Struct

from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import XID, Call, encode_call, success
from portmapd.oncrpc.netid import PROTOCOLS
from portmapd.portmapper.access import PROGRAM
from portmapd.portmapper.cached_reply import Answer, make_answer
from portmapd.portmapper.statistics import Statistics, Tally
from portmapd.portmapper.v2 import VERSION, Pmap, encode_pmap
from portmapd.registry.registry import Registry

GETPORT = 3

_QUESTION = encode_call(Call(0, PROGRAM, VERSION, GETPORT, arguments=encode_pmap(Pmap(0, 0, 0, 0))))
_SIZE = len(_QUESTION) - XID
_HEADER = _QUESTION[XID:-16]
_ARGUMENTS = Struct(f">{len(_HEADER)}xIII4x")


class Ports:
    """One answer for each port.

    :param registry: has the ports.
    :param statistics: programs that are counted apart are left to those who count them.
    """

    def __init__(self, registry: Registry, statistics: Statistics) -> None:
        self._find = registry.mappings.find
        self._counts_apart = statistics.counts_apart
        #: The answers by their port; there are 65,536 at most.
        self.answers: dict[int, Answer] = {}

    def answer(self, request: bytes) -> Answer:
        """The answer to *request*, a message less its xid.

        :raises KeyError: it is not this question, or not to be answered here.
        """
        if len(request) != _SIZE or not request.startswith(_HEADER):
            raise KeyError(request)
        program, version, protocol = _ARGUMENTS.unpack(request)
        if self._counts_apart(VERSION, program):
            raise KeyError(request)
        mapping = self._find(program, version, PROTOCOLS[protocol].name)
        port = mapping.port if mapping is not None else 0
        return self.answers.get(port) or self._make(port)

    def _make(self, port: int) -> Answer:
        answer = make_answer(_QUESTION, success(0, xdr.uint(port)), Tally(VERSION, GETPORT))
        self.answers[port] = answer
        return answer
