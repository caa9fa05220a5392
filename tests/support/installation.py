"""portmapd in a namespace as it is installed: every user can execute it."""

import sys
import sysconfig
from pathlib import Path

from tests.support.namespace import TOP, Namespace

_PROGRAM = """\
#!/usr/bin/env -S LD_LIBRARY_PATH=/opt/portmapd/python/lib /opt/portmapd/python/bin/{python}
import sys
sys.path[:0] = ["/opt/portmapd/lib", "/opt/portmapd/site"]
from {module} import {function}
sys.exit({function}())
"""
_PROGRAMS = {"twistd": ("twisted.scripts.twistd", "run"), "portmapctl": ("portmapd.cli", "main")}


def install(namespace: Namespace, folder: Path) -> None:
    """Have ``twistd`` and ``portmapctl`` in ``/opt/portmapd/bin``, wherever the checkout is.

    Its folder may be closed to other users, and so may be that of Python's library, where it is a
    shared one.

    :param folder: for files of the test.
    """
    programs = folder / "programs"
    programs.mkdir()
    python = Path(sys.executable).resolve().name
    for name, (module, function) in _PROGRAMS.items():
        program = programs / name
        program.write_text(_PROGRAM.format(python=python, module=module, function=function))
        program.chmod(0o755)
    namespace.run(
        "sh",
        "-ec",
        f"""
        mount -t tmpfs tmpfs /opt
        mkdir -p /opt/portmapd/bin /opt/portmapd/lib /opt/portmapd/site /opt/portmapd/python
        mount --bind {sysconfig.get_path("purelib")} /opt/portmapd/site
        mount --bind {sys.base_prefix} /opt/portmapd/python
        cp -r {TOP}/portmapd {TOP}/twisted /opt/portmapd/lib
        cp {programs}/* /opt/portmapd/bin
        chmod -R a+rX /opt/portmapd/lib
        """,
    )
