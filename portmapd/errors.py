"""Every exception of portmapd, and whose fault each one tells of.

::

    PortmapdError
    ├── PeerFault              a peer broke the language; its message alone is lost
    │   ├── XdrError           the bytes end early or announce too much
    │   ├── Unanswerable       no call at all: silence
    │   └── BrokenStream       a stream's framing is lost: the stream is closed
    ├── CallRefused            an RPC call answered with an error status (RFC 5531, 9)
    │   ├── RpcMismatch        another RPC version than 2
    │   ├── AuthRefused        a credential or verifier is not taken, or too weak
    │   ├── ProgramUnavailable
    │   ├── ProgramMismatch
    │   ├── ProcedureUnavailable
    │   ├── GarbageArguments
    │   └── SystemFailure
    ├── CallTimedOut           no answer came in time
    ├── Refusal                a rule of the registry or the local channel said no
    │   └── one class for each error of the channel's protocol
    ├── NoService              no service of that name, or none that accepts
    ├── DaemonUnreachable      the daemon's socket does not answer
    │   └── ClientClosed       the application closed its client
    ├── Terminated             the caller's terminator became readable
    └── ConfigurationError     an option or a socket that cannot be used: the start ends

:class:`CallRefused` is one tree for both ends: the server raises it where a call deserves the
status, the client where an answer carries it.
"""

from typing import ClassVar


class PortmapdError(Exception):
    """The root of every exception that portmapd raises on purpose."""


class PeerFault(PortmapdError):
    """A peer sent what the language does not allow."""


class XdrError(PeerFault):
    """XDR data that ends before its type does, or announces more than its type allows."""


class Unanswerable(PeerFault):
    """Bytes that are no RPC call, so that nobody can be answered."""


class BrokenStream(PeerFault):
    """A stream whose framing cannot be followed any further: it is closed."""


class CallRefused(PortmapdError):
    """An RPC call that is, or was, answered with an error status (RFC 5531, section 9)."""


class RpcMismatch(CallRefused):
    """The call's RPC version is not 2."""


class AuthRefused(CallRefused):
    """The credential or verifier was not accepted.

    :param stat: the ``auth_stat`` of RFC 5531, section 9.
    """

    def __init__(self, stat: int, why: str = "") -> None:
        super().__init__(why or f"authentication refused, auth_stat {stat}")
        self.stat = stat


class ProgramUnavailable(CallRefused):
    """The program is not served there."""


class ProgramMismatch(CallRefused):
    """The program is served in other versions only.

    :param low: the lowest version served.
    :param high: the highest version served.
    """

    def __init__(self, low: int, high: int) -> None:
        super().__init__(f"the program is served in versions {low} to {high}")
        self.low = low
        self.high = high


class ProcedureUnavailable(CallRefused):
    """The program's version has no such procedure."""


class GarbageArguments(CallRefused):
    """The arguments cannot be decoded."""


class SystemFailure(CallRefused):
    """The server failed while it served the call."""


class CallTimedOut(PortmapdError):
    """No answer to a call came within its time."""


class Refusal(PortmapdError):
    """A request that breaks a rule; the message is a sentence that names the field.

    ``code`` is the error's fixed name on the local channel.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"


class InvalidMapping(Refusal):
    """A field of an RPC mapping is out of its range or form."""

    code = "INVALID_MAPPING"


class InvalidService(Refusal):
    """A field of a named service is out of its range or form."""

    code = "INVALID_SERVICE"


class ReservedName(Refusal):
    """The service's name is one that the port mapper keeps for itself."""

    code = "RESERVED_NAME"


class AlreadyRegistered(Refusal):
    """Another registration stands in the way."""

    code = "ALREADY_REGISTERED"


class NotRegistered(Refusal):
    """There is no such registration of this holder."""

    code = "NOT_REGISTERED"


class LimitExceeded(Refusal):
    """The process would hold more than it may."""

    code = "LIMIT_EXCEEDED"


class ExecutableUnknown(Refusal):
    """The path of the process's executable cannot be known."""

    code = "EXECUTABLE_UNKNOWN"


class UnsupportedVersion(Refusal):
    """The channel does not speak that version of its protocol."""

    code = "UNSUPPORTED_VERSION"


class UnknownCommand(Refusal):
    """The channel has no such command."""

    code = "UNKNOWN_COMMAND"


class BadArguments(Refusal):
    """A command's argument is missing or not of its type."""

    code = "BAD_ARGUMENTS"


class InternalError(Refusal):
    """The daemon failed while it served the command."""

    code = "INTERNAL_ERROR"


class NoService(PortmapdError):
    """No service of that name is registered, or none that is accepts a connection."""


class NotListed(NoService):
    """No service of that name is registered."""


class NotAccepted(NoService):
    """Services of that name are registered, and none of them accepts a connection."""


class DaemonUnreachable(PortmapdError):
    """The connection to the daemon cannot be made, or was lost."""


class ClientClosed(DaemonUnreachable):
    """The application closed its client: nothing can be asked through it any more."""


class Terminated(PortmapdError):
    """The terminator became readable: the connection is closed, its registrations are gone."""


class ConfigurationError(PortmapdError):
    """An option, or a socket that an option names, cannot be used; says what to do."""
