"""A program that adds: ``twistd -ny adder.py``."""

from twisted.application.service import Application
from twisted.internet import reactor

from portmapd.rpc import INT, Procedure, Program, Request, Server, fields


def add(numbers: tuple[int, int], request: Request) -> int:
    """The sum of two numbers."""
    return sum(numbers)


ADD = Procedure("ADD", 1, fields(INT, INT), INT, add)
#: From the numbers that everyone may use for programs of their own (RFC 5531, 8.4).
ADDER = Program("adder", 0x2000_0002, 1, ADD)

application = Application("adder")
Server(reactor, ADDER, registers=True).setServiceParent(application)
