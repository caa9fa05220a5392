"""Network namespaces: a port 111, a /run and a process table for one test alone."""

import ctypes
import functools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

#: The checkout: commands run there.
TOP = Path(__file__).resolve().parents[2]

#: Where the tests find programs, whoever runs them.
PATH = ":".join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/lib/yp"))

#: Where a daemon in a namespace keeps its mappings unless it is told otherwise.
STATE_DIRECTORY = "/run/portmapd.state"

#: No command of a test takes longer, in seconds; it only keeps a broken one from hanging.
PATIENCE = 60.0

_UNSHARE = ("unshare", "-n", "-m", "-p", "-u", "-f", "--mount-proc", "--kill-child")

#: Runs as the namespace's first process, which ends it when this one's end of the pipe closes.
_FURNISH = """
set -e
ip link set lo up
mount -t tmpfs tmpfs /run
if [ "$1" = systemd ]; then
  # What it writes is the test's own, and nothing else can be written.
  for folder in etc var tmp; do
    mkdir -p /run/over/$folder /run/work/$folder
    mount -t overlay overlay /$folder \
      -o lowerdir=/$folder,upperdir=/run/over/$folder,workdir=/run/work/$folder
  done
  chmod 1777 /tmp
  mount -o remount,bind,ro /
  mkdir -p /etc/systemd/system
  mount -t tmpfs tmpfs /etc/systemd/system
  umount -l /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mkdir -p /run/rpcbind /run/lock /run/ganesha /run/sm
# No name server can be reached from here, and programs wait for one that does not answer.
if [ -f /etc/nsswitch.conf ]; then
  grep -v ^hosts: /etc/nsswitch.conf >/run/nsswitch.conf
  echo hosts: files >>/run/nsswitch.conf
  mount --bind /run/nsswitch.conf /etc/nsswitch.conf
fi
if [ -d /var/lib/nfs ]; then
  mount -t tmpfs tmpfs /var/lib/nfs
  cd /var/lib/nfs
  mkdir -p sm sm.bak v4recovery ganesha
  touch etab rmtab state xtab
  if id statd >/dev/null 2>&1; then chown -R statd:nogroup . /run/sm; fi
fi
if [ -d /var/yp ]; then mount -t tmpfs tmpfs /var/yp; fi
if [ "$1" = broadcast ]; then
  ip link add v0 type veth peer name v1
  # Without it, the new addresses could not send for a second.
  sysctl -q net.ipv6.conf.v0.accept_dad=0 net.ipv6.conf.v1.accept_dad=0
  ip addr add 10.99.0.1/24 brd 10.99.0.255 dev v0
  ip link set v0 up
  ip link set v1 up
  ip route add default dev v0
fi
echo furnished
if [ "$1" = systemd ]; then
  read -r _
  # It sees the test's units alone: those of the machine set it up, and clean /tmp.
  export container=test SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units
  exec /lib/systemd/systemd --system --unit=test.target --log-target=null --show-status=no
fi
cat
# With a last command other than that, bash stays, and collects orphans.
exit
"""

#: Runs its words in a control group of their own, so that systemd may divide it.
_CONFINE = 'mkdir "$0"; echo $$ >"$0/cgroup.procs"; exec "$@"'

#: Says its process id there before it becomes the command.
_TELL = 'echo $$ >&"$0"; eval "exec $0>&-"; exec "$@"'


def found(program: str) -> bool:
    """Whether *program* is on this machine."""
    return shutil.which(program, path=PATH) is not None


@functools.cache
def why_no_namespace() -> str:
    """Say why this process cannot make a namespace, or nothing if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in ("unshare", "nsenter", "ip") if not found(name)]:
        return f"not on this machine: {', '.join(missing)}"
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


class Namespace:
    """A network, mount and process namespace; what was started in it ends with it.

    :param broadcast: whether there is, beside loopback, an interface 10.99.0.1/24 that broadcasts.
    :param group: a control group to be made, for systemd to be the first process once
        :meth:`boot` is called; None: it is another one.
    """

    def __init__(self, *, broadcast: bool = False, group: Path | None = None) -> None:
        self._started: list[Started] = []
        kind = "systemd" if group else "broadcast" if broadcast else "plain"
        confined = ("bash", "-c", _CONFINE, str(group)) if group else ()
        self._first = subprocess.Popen(
            [*confined, *_UNSHARE, *(["-C"] if group else []), "bash", "-c", _FURNISH, "ns", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._first.stdout is not None
        if self._first.stdout.readline() != "furnished\n":
            self.close()
            raise RuntimeError("the namespace could not be furnished")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def boot(self) -> None:
        """Have systemd start ``test.target``."""
        assert self._first.stdin is not None
        self._first.stdin.write("\n")
        self._first.stdin.flush()

    def close(self) -> None:
        """End every process in it."""
        self._first.kill()
        self._first.communicate()
        for each in self._started:
            each.wait()

    def run(
        self, *command: str, status: int | None = 0, env: Mapping[str, str] | None = None
    ) -> str:
        """Run *command* in the namespace and give its output, errors included.

        :param status: the exit status it must end with; None: any.
        :param env: variables that are added to the environment.
        :raises AssertionError: it ended with another status.
        """
        done = subprocess.run(
            self.enter(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            env=_environment(env),
            check=False,
        )
        if status is not None:
            assert done.returncode == status, (
                f"{command} ended with {done.returncode}:\n{done.stdout}"
            )
        return done.stdout

    @property
    def pid(self) -> int:
        """Its first process, as this process knows it."""
        return self._first.pid

    def run_here(self, *command: str) -> None:
        """Run *command* in its network, among the processes of this one."""
        here = f"--net=/proc/{self._first.pid}/ns/net"
        subprocess.run(["nsenter", here, *command], check=True)

    def start(self, *command: str, log: Path, env: Mapping[str, str] | None = None) -> "Started":
        """Start *command* in the namespace; what it says goes to *log*."""
        with log.open("wb") as output:
            started = Started(self, command, output, _environment(env))
        self._started.append(started)
        return started

    def make_socket(self, family: int, kind: int) -> socket.socket:
        """A socket of this process that is in the namespace's network."""
        libc = ctypes.CDLL(None, use_errno=True)

        def make() -> socket.socket:
            with open(f"/proc/{self._first.pid}/ns/net", "rb") as network:
                # It moves the calling thread alone, and what that thread makes stays there.
                if libc.setns(network.fileno(), 0):
                    raise OSError(ctypes.get_errno(), "cannot enter the namespace")
            return socket.socket(family, kind)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(make).result()

    def wire(self, other: "Namespace") -> None:
        """Lay a wire from this namespace's interface w0 to w1 of *other*; neither has addresses."""
        ends = ("w0", "type", "veth", "peer", "name", "w1", "netns", str(other.pid))
        self.run_here("ip", "link", "add", *ends)
        for end, interface in ((self, "w0"), (other, "w1")):
            # Without it, new addresses could not send for a second.
            end.run("sysctl", "-q", f"net.ipv6.conf.{interface}.accept_dad=0")
            end.run("ip", "link", "set", interface, "up")

    def enter(self, *command: str) -> list[str]:
        """The words that run *command* in the namespace."""
        spaces = f"/proc/{self._first.pid}/ns"
        return [
            "nsenter",
            f"--net={spaces}/net",
            f"--mount={spaces}/mnt",
            f"--uts={spaces}/uts",
            f"--pid={spaces}/pid_for_children",
            f"--wd={TOP}",
            *command,
        ]


def _environment(added: Mapping[str, str] | None) -> dict[str, str]:
    # The file system is the machine's, but for /run: no daemon may keep its mappings elsewhere.
    return {**os.environ, "PATH": PATH, "STATE_DIRECTORY": STATE_DIRECTORY, **(added or {})}


class Started:
    """A process that runs in a namespace until it is stopped."""

    def __init__(
        self, home: Namespace, command: tuple[str, ...], output: IO[bytes], env: Mapping[str, str]
    ) -> None:
        self._home = home
        self._command = command
        read, write = os.pipe()
        with os.fdopen(read) as said:
            self._entered = subprocess.Popen(
                home.enter("bash", "-c", _TELL, str(write), *command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(write,),
                env=dict(env),
            )
            os.close(write)
            #: Its process id within the namespace.
            self.pid = int(said.readline())

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._entered.poll() is None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it do nothing in the block."""
        self._home.run("kill", "-STOP", str(self.pid))
        # nsenter stops with what it started, and has that go on when it does.
        os.waitid(os.P_PID, self._entered.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self._entered.send_signal(signal.SIGCONT)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, wait for its end, and give its exit status as Popen does."""
        self._home.run("kill", f"-{number.name.removeprefix('SIG')}", str(self.pid))
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and give its exit status as Popen does."""
        return self._entered.wait(PATIENCE)


def eventually(true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until *true* is; fail with *what* after *patience* seconds."""
    end = time.monotonic() + patience
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"not in {patience:g} s: {what}")
        time.sleep(0.05)
