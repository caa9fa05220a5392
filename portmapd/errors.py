"""Every exception of portmapd, by whose fault it is.

::

    PortmapdError
    ├── PeerFault              a peer sent something malformed; only its message is lost
    │   ├── XdrError           the bytes end early or announce too much
    │   ├── Unanswerable       not a call or a reply: nobody can be answered
    │   └── BrokenStream       the framing of a stream is lost: it is closed
    ├── CallRefused            an RPC call answered with an error status (RFC 5531, 9)
    │   ├── RpcMismatch        another RPC version than 2
    │   ├── AuthRefused        the credential or verifier is not accepted, or too weak
    │   ├── ProgramUnavailable
    │   ├── ProgramMismatch
    │   ├── ProcedureUnavailable
    │   ├── GarbageArguments
    │   └── SystemFailure
    ├── CallTimedOut           there was no answer in time
    ├── Refusal                a rule of the registry or the local channel forbids it
    │   └── one class for each error of the channel's protocol
    ├── NoService              no service of that name, or none that accepts connections
    ├── DaemonUnreachable      there is no connection to the daemon
    │   └── ClientClosed       the application closed its client
    ├── InvalidState           a file of mappings cannot be used: it is set aside
    ├── HandoverFailed         another process cannot take the place of this one
    ├── EtcdError              etcd did not do what it was asked
    │   ├── EtcdUnavailable    no member answers, or none can
    │   ├── EtcdGarbage        what answers is not etcd
    │   └── EtcdRefused        it answers with an error
    │       ├── EtcdFull       there is no space for anything new
    │       ├── LeaseNotFound  the lease has ended
    │       └── Compacted      the revision is too old
    ├── NameTaken              another machine of the cluster is called so
    ├── Terminated             the operation's terminator became readable
    └── ConfigurationError     an option or a socket cannot be used: nothing is started

:class:`CallRefused` serves both ends: the server raises it for a call that is answered with that
status, the client for a reply that carries it.
"""

from typing import ClassVar


class PortmapdError(Exception):
    """The root of every exception that portmapd raises on purpose."""


class PeerFault(PortmapdError):
    """A peer sent something malformed."""


class XdrError(PeerFault):
    """XDR data that ends early, or announces a length above the limit of its type."""


class Unanswerable(PeerFault):
    """Bytes that are no RPC message, so that there is nobody to answer."""


class BrokenStream(PeerFault):
    """A stream whose framing is lost: it is closed."""


class CallRefused(PortmapdError):
    """An RPC call is answered with an error status (RFC 5531, section 9).

    :cvar code: the name of the status.
    """

    code: ClassVar[str] = "SYSTEM_ERR"


class RpcMismatch(CallRefused):
    """The call's RPC version is not 2."""

    code = "RPC_MISMATCH"


class AuthRefused(CallRefused):
    """The credential or verifier is not accepted.

    :param stat: the ``auth_stat`` of RFC 5531, section 9.
    :param why: a sentence; empty: the number is named.
    """

    code = "AUTH_ERROR"

    def __init__(self, stat: int, why: str = "") -> None:
        super().__init__(why or f"authentication refused, auth_stat {stat}")
        self.stat = stat


class ProgramUnavailable(CallRefused):
    """The server does not serve the program."""

    code = "PROG_UNAVAIL"


class ProgramMismatch(CallRefused):
    """The server serves only other versions of the program.

    :param low: the lowest version that it serves.
    :param high: the highest version that it serves.
    """

    code = "PROG_MISMATCH"

    def __init__(self, low: int, high: int) -> None:
        super().__init__(f"the program is served in versions {low} to {high}")
        self.low = low
        self.high = high


class ProcedureUnavailable(CallRefused):
    """The program's version has no such procedure."""

    code = "PROC_UNAVAIL"


class GarbageArguments(CallRefused):
    """The arguments cannot be decoded."""

    code = "GARBAGE_ARGS"


class SystemFailure(CallRefused):
    """The server failed while serving the call."""


class CallTimedOut(PortmapdError):
    """There was no answer in time."""


class Refusal(PortmapdError):
    """A rule forbids the request. The message is a sentence that names the field.

    :cvar code: the name of the error on the local channel.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"


class InvalidMapping(Refusal):
    """A field of an RPC mapping is malformed or out of range."""

    code = "INVALID_MAPPING"


class InvalidService(Refusal):
    """A field of a named service is malformed or out of range."""

    code = "INVALID_SERVICE"


class ReservedName(Refusal):
    """The name is reserved for the port mapper."""

    code = "RESERVED_NAME"


class AlreadyRegistered(Refusal):
    """The name, or the program's version on that netid, is already registered."""

    code = "ALREADY_REGISTERED"


class NotRegistered(Refusal):
    """The holder has no such registration."""

    code = "NOT_REGISTERED"


class LimitExceeded(Refusal):
    """The process would hold more than its limit."""

    code = "LIMIT_EXCEEDED"


class ExecutableUnknown(Refusal):
    """The path of the process's executable is not known."""

    code = "EXECUTABLE_UNKNOWN"


class UnsupportedVersion(Refusal):
    """The daemon does not speak that version of the channel's protocol."""

    code = "UNSUPPORTED_VERSION"


class UnknownCommand(Refusal):
    """The channel has no such command."""

    code = "UNKNOWN_COMMAND"


class BadArguments(Refusal):
    """A command's argument is missing or not of its type."""

    code = "BAD_ARGUMENTS"


class NotAllowed(Refusal):
    """The user may not ask for that."""

    code = "NOT_ALLOWED"


class RestartFailed(Refusal):
    """The daemon goes on as it was. The message says why."""

    code = "RESTART_FAILED"


class NoCluster(Refusal):
    """The daemon belongs to no cluster."""

    code = "NO_CLUSTER"


class ClusterUnreachable(Refusal):
    """What the cluster shares is not known, or has not been for long. The message says why."""

    code = "CLUSTER_UNREACHABLE"


class NameLost(Refusal):
    """A name that was held in the whole cluster is held no longer. The message says why."""

    code = "NAME_LOST"


class InternalError(Refusal):
    """The daemon failed while serving the command."""

    code = "INTERNAL_ERROR"


class NoService(PortmapdError):
    """No service of that name is registered, or none of them accepts a connection."""


class NotListed(NoService):
    """No service of that name is registered."""


class NotAccepted(NoService):
    """Services of that name are registered, but none of them accepts a connection."""


class DaemonUnreachable(PortmapdError):
    """The connection to the daemon cannot be made, or was lost."""


class ClientClosed(DaemonUnreachable):
    """The application closed its client, which cannot be used any more."""


class Terminated(PortmapdError):
    """The terminator became readable. The connection is closed, its registrations are gone."""


class InvalidState(PortmapdError):
    """The mappings of an earlier run cannot be read. The message says what is wrong with them."""


class HandoverFailed(PortmapdError):
    """Another process cannot take the place of this one. The message says why."""


class EtcdError(PortmapdError):
    """etcd did not do what it was asked. The message says why."""


class EtcdUnavailable(EtcdError):
    """No member of etcd answers in time, or those that do have no leader."""


class EtcdGarbage(EtcdError):
    """What answers is not etcd, or says more than it may."""


class EtcdRefused(EtcdError):
    """etcd answers with an error, which the message is."""


class EtcdFull(EtcdRefused):
    """etcd takes nothing new: its space is exceeded."""


class LeaseNotFound(EtcdRefused):
    """The lease has ended, and what was under it is gone."""


class Compacted(EtcdRefused):
    """etcd does not know any more what changed after the revision that was asked for."""


class NameTaken(PortmapdError):
    """Another machine of the cluster is called as this one is. The message says what to do."""


class ConfigurationError(PortmapdError):
    """An option, or a socket named by an option, cannot be used. The message says what to do."""
