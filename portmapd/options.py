"""The options of the daemon: one table for command lines, environment variables and the file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from attrs import frozen

from portmapd.cluster_config import ClusterConfig
from portmapd.config import RPCBIND_DIRECTORY, Config
from portmapd.errors import ConfigurationError
from portmapd.server.log_output import LEVEL, LEVELS

#: The file that is read if none is named and it is there.
FILE = "/etc/portmapd.toml"
#: What the names of environment variables begin with.
PREFIX = "PORTMAPD_"
CONFIG = f"File of options in TOML, or none. [default: ${PREFIX}CONFIG, or {FILE} if it is there]"
"""What ``--config`` does."""

#: A file of options is a page or two; a larger one is something else.
MAX_FILE = 1 << 20


class Group(Enum):
    """What an option is about, as a heading of the help."""

    ADDRESSES = "Addresses"
    ACCESS = "Access"
    CHANNEL = "Local channel"
    LIVENESS = "Dead services"
    STATE = "Restarts"
    CLUSTER = "Cluster"
    HTTP = "Status page and metrics"
    LOGS = "Logs"


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError("is not a whole number") from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError("is not a number of seconds") from None


def _period(text: str) -> float | None:
    return None if text == "off" else _seconds(text)


def _path(text: str) -> str | None:
    return None if text == "none" else text


def _level(text: str) -> str:
    if text not in LEVELS:
        raise ConfigurationError(f"is none of {', '.join(LEVELS)}")
    return text


#: The words of a flag in an environment variable.
_FLAGS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}


def _flag(text: str) -> bool:
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise ConfigurationError("is neither yes nor no") from None


@frozen
class Option:
    """One option.

    :param name: its name on a command line, without dashes in front, and in the file.
    :param group: what it is about.
    :param help: what it does.
    :param metavar: what its value is; empty for a flag.
    :param read: makes a value of a text; it raises ConfigurationError with the end of a sentence.
    :param default: the default as people read it; empty: none is shown.
    :param repeated: whether it may be given several times; its value is a list then.
    :param letter: its short form; empty: it has none.
    """

    name: str
    group: Group
    help: str
    metavar: str = ""
    read: Callable[[str], Any] = str
    default: str = ""
    repeated: bool = False
    letter: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether it is given without a value."""
        return not self.metavar

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.replace("-", "_").upper()

    @property
    def description(self) -> str:
        """What it does, with its default."""
        again = " May be repeated." if self.repeated else ""
        return f"{self.help}{again}{f' [default: {self.default}]' if self.default else ''}"

    def value(self, text: str, shown: str) -> Any:
        """The value that *text* means.

        :param shown: how the option is called where the text came from.
        :raises ConfigurationError: it means none.
        """
        try:
            return self.read(text)
        except ConfigurationError as error:
            raise ConfigurationError(f"{shown} {text!r} {error}") from None


OPTIONS = (
    Option("port", Group.ADDRESSES, "Port on UDP and TCP.", "NUMBER", _whole,
           "111 if it may be bound, else 10111", letter="p"),
    Option("interface", Group.ADDRESSES,
           "Address to serve on, beside 127.0.0.1 and ::1; 0.0.0.0 and :: serve the network.",
           "ADDRESS", default="127.0.0.1 and ::1 alone", repeated=True),
    Option("no-loopback", Group.ADDRESSES,
           "Do not serve 127.0.0.1 and ::1 beside the addresses of --interface.", read=_flag),
    Option("advertise", Group.ADDRESSES,
           "Address, or NETWORK=ADDRESS, that callers (of that network) are told for services on "
           "all addresses.", "ADDRESS", default="the address that they reached", repeated=True),
    Option("rpc-socket", Group.ADDRESSES, "Path of the rpcbind socket, or none.", "PATH", _path,
           "/run/rpcbind.sock as root, else none"),
    Option("allow", Group.ACCESS,
           "Network (CIDR) whose callers are answered, beside this host.", "NETWORK",
           default="all", repeated=True),
    Option("trust", Group.ACCESS,
           "Network (CIDR) whose UDP callers may get replies larger than their requests.",
           "NETWORK", repeated=True),
    Option("insecure", Group.ACCESS,
           "Accept SET and UNSET from other hosts, not only from this one.", read=_flag),
    Option("callit", Group.ACCESS,
           "Whose calls to forward: off, local (of this host), null (others' procedure 0 too), or "
           "all.", "WHOSE", default="local"),
    Option("max-user-mappings", Group.ACCESS,
           "The most mappings that one user but root may set over rpcbind's protocol.", "NUMBER",
           _whole, "1000"),
    Option("max-total-mappings", Group.ACCESS,
           "The most mappings that all users together may set so.", "NUMBER", _whole, "100000"),
    Option("local-socket", Group.CHANNEL, "Path of the local channel's socket, or none.", "PATH",
           _path, "/run/portmapd/portmapd.sock as root, else $XDG_RUNTIME_DIR/portmapd.sock or "
           "/tmp/portmapd-UID/portmapd.sock"),
    Option("max-services", Group.CHANNEL,
           "The most services that one process may hold on the local channel.", "NUMBER", _whole,
           "10"),
    Option("max-mappings", Group.CHANNEL,
           "The most RPC mappings that one process may hold on the local channel.", "NUMBER",
           _whole, "64"),
    Option("read-executables", Group.CHANNEL,
           "Keep the right to read which executables other users run, for their public services.",
           read=_flag),
    Option("liveness", Group.LIVENESS, "Seconds between two checks for dead services, or off.",
           "SECONDS", _period, "1"),
    Option("forget", Group.LIVENESS,
           "Seconds for which the mapping of a dead service is remembered.", "SECONDS", _seconds,
           "60"),
    Option("state", Group.STATE, "Path of the file in which mappings outlive portmapd, or none.",
           "PATH", _path, "$STATE_DIRECTORY/mappings, else /var/lib/portmapd/mappings as root, "
           "else none"),
    Option("import-rpcbind", Group.STATE,
           f"Take over the mappings that rpcbind left in {RPCBIND_DIRECTORY}.", read=_flag),
    Option("import-rpcbind-from", Group.STATE,
           "Take over the mappings that rpcbind left in the files of that directory.", "PATH",
           _path),
    Option("cluster", Group.CLUSTER,
           "Members of etcd (http://HOST:2379, with commas) through which machines share services.",
           "URLS"),
    Option("cluster-host", Group.CLUSTER, "What this machine is called in the cluster.", "NAME",
           default="its host name"),
    Option("cluster-address", Group.CLUSTER, "Where other machines reach this one.", "ADDRESS",
           default="the one from which it reaches etcd, if that is given as an address"),
    Option("cluster-prefix", Group.CLUSTER, "What the keys in etcd begin with.", "PATH",
           default="/portmapd/"),
    Option("cluster-ttl", Group.CLUSTER,
           "Seconds that what a machine shares is there after it has died.", "SECONDS", _whole,
           "10"),
    Option("cluster-stale", Group.CLUSTER,
           "Seconds without etcd after which other machines' services are not told any more.",
           "SECONDS", _seconds, "60"),
    Option("cluster-mappings", Group.CLUSTER,
           "Programs whose RPC mappings are shared, too: numbers with commas, or all.", "PROGRAMS"),
    Option("cluster-user", Group.CLUSTER, "User of etcd.", "NAME"),
    Option("cluster-password-file", Group.CLUSTER, "File of that user's password.", "PATH"),
    Option("cluster-ca", Group.CLUSTER, "File of the authorities of etcd's certificates.", "PATH",
           default="those that this host trusts"),
    Option("cluster-cert", Group.CLUSTER, "File of this machine's certificate for etcd.", "PATH"),
    Option("cluster-key", Group.CLUSTER, "File of its key.", "PATH"),
    Option("http", Group.HTTP,
           "Endpoint (of Twisted) of the status page and metrics, such as "
           "tcp:8080:interface=127.0.0.1.", "ENDPOINT"),
    Option("http-name", Group.HTTP,
           "Name of this host under which browsers may ask for it, beside its host name.", "NAME",
           repeated=True),
    Option("log-level", Group.LOGS,
           "The least urgent events that are logged: debug, info, warn, error or critical.",
           "LEVEL", _level, LEVEL),
)  # fmt: skip
"""Every option, in the order of the help."""

BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}

#: The fields of the configuration that are not called as their options are; None: there is none.
_FIELDS: Mapping[str, str | None] = {
    "interface": "interfaces",
    "no-loopback": "loopback",
    "http-name": "http_names",
    "import-rpcbind": "import_rpcbind",
    "import-rpcbind-from": "import_rpcbind",
    "read-executables": None,
    "log-level": None,
}
#: What flags set their fields to, if not to True.
_MEANINGS: Mapping[str, Any] = {"no-loopback": False, "import-rpcbind": RPCBIND_DIRECTORY}


#: What is given for options: a text, several if it may be repeated, or whether a flag is set.
Given = Mapping[str, str | Sequence[str] | bool]


@frozen
class Source:
    """Where options were given.

    :param name: for messages; empty: the command line.
    :param given: what was given for each option, by its name.
    :param values: what that means.
    """

    name: str
    given: Given
    values: Mapping[str, Any]


@frozen
class Settings:
    """Everything that the options say.

    :param values: what each option means that was given, by its name.
    :param sources: where options were given, the strongest last.
    """

    values: Mapping[str, Any]
    sources: Sequence[Source] = ()

    @property
    def log_level(self) -> str:
        """The least urgent level that is logged."""
        level: str = self.values.get("log-level", LEVEL)
        return level

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the configuration that the options set."""
        return _fields(self.values)

    def config(self, defaults: Mapping[str, Any] | None = None) -> Config:
        """The configuration.

        :param defaults: fields that count where no option says otherwise.
        :raises ConfigurationError: the defaults do not fit the options.
        """
        return Config(**{**(defaults or {}), **self.fields})


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    fields = {}
    if cluster := _cluster(values):
        fields["cluster"] = cluster
    # In the order of the table: --import-rpcbind-from is stronger than --import-rpcbind.
    for option in OPTIONS:
        if option.group is Group.CLUSTER:
            continue
        name = _FIELDS.get(option.name, option.name.replace("-", "_"))
        value = values.get(option.name, False)
        if name is not None and option.name in values and value is not False:
            fields[name] = _MEANINGS.get(option.name, value)
    return fields


def _cluster(values: Mapping[str, Any]) -> ClusterConfig | None:
    """How the port mapper belongs to a cluster; None: it belongs to none, as far as is known."""
    given = {
        option.name.removeprefix("cluster-").replace("-", "_"): values[option.name]
        for option in OPTIONS
        if option.group is Group.CLUSTER and option.name in values
    }
    members = given.pop("cluster", None)
    return None if members is None else ClusterConfig(members=members, **given)


def settings(
    given: Given,
    environ: Mapping[str, str] = os.environ,
    file: str | None = None,
) -> Settings:
    """What the options of a command line say, with those of the environment and of the file.

    The command line is stronger than the environment, and that stronger than the file. A list is
    taken from one source as a whole.

    :param given: the options of the command line.
    :param environ: the environment.
    :param file: path of the file; None: the environment's ``PORTMAPD_CONFIG``, or
        ``/etc/portmapd.toml`` if it is there; ``none``: no file.
    :raises ConfigurationError: an option cannot be used. The message says where it was given.
    """
    sources = [*_file(file or environ.get(f"{PREFIX}CONFIG")), *_environment(environ)]
    sources.append(Source("", given, _values(given, "--{}".format)))
    values: dict[str, Any] = {}
    for source in sources:
        values |= source.values
        _check(values, source)
    alone = next((name for name in values if name.startswith("cluster-")), "")
    if alone and "cluster" not in values:
        raise ConfigurationError(f"{alone} is of no use without cluster: name members of etcd")
    return Settings(values, sources)


def _check(values: Mapping[str, Any], source: Source) -> None:
    """Check what *source* adds, so that a fault is told of where it was made."""
    try:
        Config(**_fields(values))
    except ConfigurationError as error:
        raise ConfigurationError(f"{source.name}: {error}" if source.name else error) from None


def _values(given: Given, shown: Callable[[str], str]) -> dict[str, Any]:
    return {name: _value(BY_NAME[name], texts, shown(name)) for name, texts in given.items()}


def _value(option: Option, given: str | Sequence[str] | bool, shown: str) -> Any:
    if isinstance(given, bool):
        return given
    if isinstance(given, str):
        return option.value(given, shown)
    return [option.value(text, shown) for text in given]


def _environment(environ: Mapping[str, str]) -> Iterator[Source]:
    texts = {
        option.name: re.split("[, ]+", text.strip(", ")) if option.repeated else text
        for option in OPTIONS
        if (text := environ.get(option.variable)) is not None
    }
    if texts:
        named = {name: BY_NAME[name].variable for name in texts}
        yield Source("the environment", texts, _values(texts, named.__getitem__))


def _file(path: str | None) -> Iterator[Source]:
    """What a file says; nothing if it is the usual one and not there.

    :raises ConfigurationError: it cannot be read or understood.
    """
    if path == "none":
        return
    where = Path(path or FILE)
    try:
        with where.open("rb") as file:
            text = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        if path is None:
            return
        raise ConfigurationError(f"{where} is not there; --config names the file") from None
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be read: {error.strerror}") from None
    yield _read(where, text)


def _read(path: Path, text: bytes) -> Source:
    """What the text of a file says.

    :raises ConfigurationError: it is not TOML, has unknown keys or values that cannot be used.
    """
    # Most starts have no file, and would wait for the import.
    import tomllib

    if len(text) > MAX_FILE:
        raise ConfigurationError(f"{path} is larger than {MAX_FILE} bytes")
    try:
        lines = text.decode()
        keys = tomllib.loads(lines)
    except ValueError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    given, values = {}, {}
    for key, value in keys.items():
        try:
            option = _known(key)
            given[key] = _texts(option, value)
            values[key] = _value(option, given[key], key)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}{_line_of(key, lines)}: {error}") from None
    return Source(str(path), given, values)


def _known(key: str) -> Option:
    if option := BY_NAME.get(key):
        return option
    from difflib import get_close_matches

    near = get_close_matches(key.replace("_", "-"), BY_NAME, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigurationError(f"there is no option {key!r}{hint}")


def _texts(option: Option, value: object) -> str | Sequence[str] | bool:
    """A value of TOML as what a command line gives."""
    if option.is_flag:
        if isinstance(value, bool):
            return value
        raise ConfigurationError(f"{option.name} is true or false")
    if option.repeated:
        return [_text(option, each) for each in (value if isinstance(value, list) else [value])]
    return _text(option, value)


def _text(option: Option, value: object) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise ConfigurationError(
        f"{option.name} is {'a list of texts' if option.repeated else 'one value'}"
    )


def _line_of(key: str, text: str) -> str:
    """The line that sets *key*, for a message; empty if it is spelt in a way that hides it."""
    spelt = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    numbers = (number for number, line in enumerate(text.splitlines(), 1) if spelt.match(line))
    number = next(numbers, None)
    return f", line {number}" if number else ""
