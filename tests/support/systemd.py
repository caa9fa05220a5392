"""A host whose first process is systemd, with portmapd's units installed as the pages say."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.installation import install
from tests.support.namespace import TOP, Namespace, eventually

UNITS = TOP / "systemd"
#: Where control groups of version 2 may be: alone, or beside those of version 1.
_GROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))

#: systemd with nothing but what a test adds.
_TARGET = """
[Unit]
DefaultDependencies=no
AllowIsolate=yes
Wants=sockets.target multi-user.target
After=sockets.target
"""
_EMPTY = "[Unit]\nDefaultDependencies=no\n"
#: Targets that the units refer to; nothing else of the machine's own units is there.
_TARGETS = {f"{name}.target": _EMPTY for name in ("sockets", "multi-user", "rpcbind", "shutdown")}


@contextmanager
def booted(folder: Path, files: Mapping[str, str]) -> Iterator[Namespace]:
    """Run systemd in the block, once portmapd's socket and service are enabled.

    :param folder: for files of the test.
    :param files: further units and additions to units, by their paths in a folder of units.
    :raises AssertionError: systemd does not run here, and why.
    """
    group = _new_group()
    namespace = Namespace(group=group)
    try:
        _install(namespace, folder, {"test.target": _TARGET, **_TARGETS, **files})
        namespace.boot()
        running = ("systemctl", "is-active", "test.target")
        eventually(lambda: namespace.run(*running, status=None) == "active\n", "systemd runs")
        yield namespace
    finally:
        namespace.close()
        _remove(group)


def _new_group() -> Path:
    """A path for a control group below that of this process."""
    root = next(each for each in reversed(_GROUPS) if (each / "cgroup.procs").exists())
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
    return root / own / f"portmapd-{os.getpid()}"


def _remove(group: Path) -> None:
    """Remove a control group; its processes have ended, which the kernel may not know yet."""

    def removed() -> bool:
        for path, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(path).rmdir()
        return not group.exists()

    eventually(removed, f"{group} is removed")


def _install(namespace: Namespace, folder: Path, files: Mapping[str, str]) -> None:
    units = folder / "units"
    for name, text in files.items():
        path = units / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    install(namespace, folder)
    namespace.run(
        "sh",
        "-ec",
        f"""
        systemd-sysusers {UNITS}/portmapd.sysusers
        mkdir /run/units
        cp -r {UNITS}/*.socket {UNITS}/*.service {units}/* /run/units
        export SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units
        systemctl enable portmapd.socket portmapd.service
        """,
    )
