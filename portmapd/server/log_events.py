"""The events that the log tells of: stable names and fields, for people and for programs."""

from string import Formatter
from typing import Any

from attrs import field, frozen
from twisted.logger import Logger, LogLevel


@frozen
class LogEvent:
    """One kind of event.

    :param name: the value of the field ``event``.
    :param level: the name of its level.
    :param text: the line, with the names of its fields in braces.
    :param more: what several of them are called.
    """

    name: str
    level: str
    text: str
    more: str = field(kw_only=True)

    @more.default
    def _more(self) -> str:
        return f"events of the kind {self.name}"

    @property
    def fields(self) -> list[str]:
        """The names of its fields, in the order of the text."""
        return [field for _, field, _, _ in Formatter().parse(self.text) if field]

    @property
    def urgency(self) -> Any:
        """Its level, as a logger takes it."""
        return LogLevel.levelWithName(self.level)

    def emit(self, log: Logger, **fields: object) -> None:
        """Log that it happened.

        :param fields: the fields of its text.
        """
        log.emit(self.urgency, self.text, event=self.name, **fields)


_MAPPING = "program {program} version {version} on {netid}"
_OWNED = f"{_MAPPING} at {{address}} of {{owner}}"

SERVING = LogEvent("serving", "info", "serving {what}")
NO_CHANNEL = LogEvent(
    "no-local-channel",
    "warn",
    "no local channel: {folder} belongs to another user; choose a path with --local-socket, or set "
    "XDG_RUNTIME_DIR",
)
LOG_REOPENED = LogEvent("log-reopened", "info", "SIGHUP: the log is open again")
LOG_NOT_REOPENED = LogEvent(
    "log-not-reopened", "warn", "the log file {path} cannot be opened again: {error}"
)
MAPPING_SET = LogEvent("mapping-set", "info", f"{_MAPPING} is set to {{address}} by {{who}}")
MAPPING_UNSET = LogEvent("mapping-unset", "info", f"{_MAPPING} at {{address}} is unset by {{who}}")
MAPPING_REPLACED = LogEvent(
    "mapping-replaced", "info", f"{_MAPPING} is moved from {{old}} to {{address}} by {{who}}"
)
MAPPING_DEAD = LogEvent(
    "mapping-dead",
    "info",
    f"{_OWNED} is not answered: its address is no longer bound by its service",
)
MAPPING_REMOVED = LogEvent(
    "mapping-removed",
    "info",
    f"{_OWNED} is removed: its address is no longer bound by its service",
)
MAPPING_BACK = LogEvent(
    "mapping-back", "info", f"{_OWNED} is answered again: its address is bound again"
)
MAPPING_FORGOTTEN = LogEvent(
    "mapping-forgotten", "info", f"{_OWNED} is forgotten: its service did not come back"
)
STATE_RESTORED = LogEvent(
    "state-restored",
    "info",
    "mappings of an earlier run: {registered} are registered, {remembered} are remembered; from "
    "{path}",
)
STATE_SET_ASIDE = LogEvent(
    "state-set-aside",
    "warn",
    "the mappings in {path} are not taken back: {why}; the file is {name} now",
)
STATE_NOT_WRITTEN = LogEvent(
    "state-not-written", "warn", "the mappings cannot be kept in {path}: {error}; trying again"
)
STATE_WRITTEN = LogEvent("state-written", "info", "the mappings are kept in {path} again")
STATE_OFF = LogEvent("state-off", "warn", "the mappings are not kept: {why}")
RPCBIND_IMPORTED = LogEvent(
    "rpcbind-imported", "info", "{count} mappings of rpcbind are registered; from {path}"
)
RPCBIND_NOT_IMPORTED = LogEvent(
    "rpcbind-not-imported", "warn", "the mappings of rpcbind in {path} are not taken over: {why}"
)
REQUEST_REFUSED = LogEvent(
    "request-refused",
    "warn",
    "refused for {caller} over {netid}: {why}",
    more="refused requests",
)
SERVICE_REGISTERED = LogEvent(
    "service-registered", "info", "{name} is registered at {port} by uid {uid}, pid {pid}"
)
SERVICE_DEREGISTERED = LogEvent(
    "service-deregistered", "info", "{name} at {port} of uid {uid}, pid {pid} is gone"
)
COMMAND_REFUSED = LogEvent(
    "command-refused", "warn", "{command} of uid {uid}, pid {pid} is refused: {why}"
)
CONNECTION_REFUSED = LogEvent(
    "connection-refused", "warn", "a connection of pid {pid} is refused: {why}"
)
CONNECTION_SENT_AWAY = LogEvent(
    "connection-sent-away",
    "warn",
    "a connection of {caller} over {netid} is closed: {why}",
    more="connections sent away",
)
PEER_GONE = LogEvent("peer-gone", "debug", "pid {pid} has ended before it was looked up: {why}")
MALFORMED = LogEvent(
    "malformed",
    "warn",
    "malformed message from {caller} over {netid}: {fault}",
    more="malformed messages",
)
REPLY_LOST = LogEvent("reply-lost", "debug", "a reply to {address} is lost: {error}")
PROCEDURE_FAILED = LogEvent(
    "procedure-failed",
    "critical",
    "procedure {procedure} of program {program} version {version} failed for {caller}",
    more="failed procedures",
)
NOT_REGISTERED = LogEvent(
    "not-registered", "warn", "{what} cannot be registered with the port mapper of this host: {why}"
)
RESTARTING = LogEvent("restarting", "info", "a new process takes the place of this one")
HANDED_OVER = LogEvent("handed-over", "info", "pid {pid} serves in place of this process")
NOT_HANDED_OVER = LogEvent(
    "not-handed-over", "error", "no other process takes the place of this one: {why}"
)
KEPT_NOT_USED = LogEvent(
    "kept-not-used",
    "warn",
    "what the process before has left with the service manager is not used: {why}",
)
PID_FILE_NOT_WRITTEN = LogEvent(
    "pid-file-not-written", "warn", "the pid file {path} names an ended process: {why}"
)
CLUSTER_JOINED = LogEvent("cluster-joined", "info", "{host} has joined its cluster")
CLUSTER_TROUBLE = LogEvent(
    "cluster-trouble", "warn", "{host} is cut off from its cluster ({state}): {why}"
)
CLUSTER_NAME_LOST = LogEvent(
    "cluster-name-lost",
    "warn",
    "name {name} of uid {uid}, pid {pid} is held in the cluster no longer: {why}",
)
OMITTED = LogEvent("omitted", "warn", "{count} more {what}")

#: Every event, by its name.
EVENTS = {
    event.name: event
    for event in (
        SERVING,
        NO_CHANNEL,
        LOG_REOPENED,
        LOG_NOT_REOPENED,
        MAPPING_SET,
        MAPPING_UNSET,
        MAPPING_REPLACED,
        MAPPING_DEAD,
        MAPPING_REMOVED,
        MAPPING_BACK,
        MAPPING_FORGOTTEN,
        STATE_RESTORED,
        STATE_SET_ASIDE,
        STATE_NOT_WRITTEN,
        STATE_WRITTEN,
        STATE_OFF,
        RPCBIND_IMPORTED,
        RPCBIND_NOT_IMPORTED,
        REQUEST_REFUSED,
        SERVICE_REGISTERED,
        SERVICE_DEREGISTERED,
        COMMAND_REFUSED,
        CONNECTION_REFUSED,
        CONNECTION_SENT_AWAY,
        PEER_GONE,
        MALFORMED,
        REPLY_LOST,
        PROCEDURE_FAILED,
        NOT_REGISTERED,
        RESTARTING,
        HANDED_OVER,
        NOT_HANDED_OVER,
        KEPT_NOT_USED,
        PID_FILE_NOT_WRITTEN,
        CLUSTER_JOINED,
        CLUSTER_TROUBLE,
        CLUSTER_NAME_LOST,
        OMITTED,
    )
}
