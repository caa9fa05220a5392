"""rpcbind's own files, from which its mappings are taken over."""

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress

from attrs import frozen

from portmapd.errors import InvalidState
from portmapd.oncrpc.program import Rpcb
from portmapd.portmapper.warm_start import decode_pmaplist, decode_rpcblist, warm_start_mappings
from portmapd.registry.mapping import Mapping
from portmapd.server.directories import trusted_directory
from portmapd.server.trusted_files import read_trusted, trusted_users

#: The most bytes of a file: rpcbind takes about 80 for a mapping.
MAX_SIZE = 1 << 24
#: The users as whom distributions run rpcbind, which own what it writes.
_USERS = ("_rpc", "rpc", "rpcbind")
#: The first one knows netids and owners.
_FILES = {"rpcbind.xdr": decode_rpcblist, "portmap.xdr": decode_pmaplist}


@frozen
class RpcbindFiles:
    """What rpcbind left when it ended.

    :param mappings: what a port mapper can serve of it.
    :param modified: when the newest of the files was written, in seconds of the system's clock; 0:
        there is none.
    """

    mappings: list[Mapping]
    modified: float = 0.0


def read_rpcbind_files(folder: str) -> RpcbindFiles:
    """Read the files in a directory; one that is missing has nothing.

    :raises InvalidState: one of them is malformed, or anybody but root, rpcbind's user and this
        user can have written it.
    :raises OSError: the directory cannot be used.
    """
    rpcbs: list[Rpcb] = []
    modified = 0.0
    users = trusted_users(*_rpcbind_users())
    with trusted_directory(folder, users) as descriptor:
        for name, decode in _FILES.items():
            try:
                data = read_trusted(descriptor, name, users, MAX_SIZE)
                if data is not None:
                    rpcbs += decode(data)
                    modified = max(modified, os.stat(name, dir_fd=descriptor).st_mtime)
            except InvalidState as why:
                raise InvalidState(f"{name}: {why}") from None
    return RpcbindFiles(warm_start_mappings(rpcbs), modified)


def _rpcbind_users() -> Iterator[int]:
    for name in _USERS:
        with suppress(KeyError):
            yield pwd.getpwnam(name).pw_uid
