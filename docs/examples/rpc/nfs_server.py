"""A server of NFS version 3 for one directory, to be read: ``python nfs_server.py FOLDER``.

It serves what everyone may read, and asks nobody who they are. It follows no symbolic links.
"""

import os
import stat
import sys
from collections.abc import Callable
from errno import EACCES, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE
from typing import Any

from portmapd import rpc
from portmapd.rpc import BOOL, OPAQUE, STRING, UHYPER, UINT, VOID, Procedure, Program, Request, Type

#: The statuses of NFS (RFC 1813, 2.6) are numbers of errno but for these; what has none is IO.
OK, IO, READ_ONLY = 0, 5, 30
STATUSES = {n: n for n in (ENOENT, EACCES, ENOTDIR, EISDIR, EINVAL)}
STATUSES |= {ENAMETOOLONG: 63, ESTALE: 70}
#: ``ftype3``: a file, a directory, a block and a character device, a link, a socket, a FIFO.
FORMATS = "-dbclsp"
#: The rights to read, to look up and to execute (3.3.4).
RIGHTS = 0x01 | 0x02 | 0x20
#: The largest read, and what is sent of a directory at once, in bytes.
LARGEST = 32_768
#: The most bytes that an entry of a directory has beside its name.
ENTRY = 140

HANDLE = rpc.opaque(64)
ATTRIBUTES = rpc.fields(*[UINT] * 5, UHYPER, UHYPER, UINT, UINT, UHYPER, UHYPER, *[UINT] * 6)
POST = rpc.optional(ATTRIBUTES)


def results(*types: Type[Any], failed: Type[Any] = POST) -> Type[tuple[int, Any]]:
    """The results of a procedure: these after OK, else attributes, which are left out."""
    return rpc.union({OK: rpc.fields(*types)}, default=failed)


class Export:
    """A directory.

    :param folder: its path.
    """

    def __init__(self, folder: str) -> None:
        self.folder = os.path.realpath(folder)
        root = os.lstat(self.folder)
        self.device = root.st_dev
        self.root = root.st_ino
        #: Where each file is that clients have seen, by its number; that is its handle, too.
        self.paths = {self.root: self.folder}

    def find(self, handle: bytes) -> tuple[str, os.stat_result]:
        """The file of a handle: its path, and what is known of it."""
        path = self.paths.get(int.from_bytes(handle), "")
        found = self.look(path) if path else None
        if found is None or handle_of(found) != handle:
            raise OSError(ESTALE, "the file is not there any more")
        return path, found

    def look(self, path: str) -> os.stat_result:
        """What is known of a file, unless that is not everyone's to read."""
        found = os.lstat(path)
        may_read = stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_IROTH
        if found.st_dev != self.device or not (may_read or found.st_ino == self.root):
            raise OSError(EACCES, "not everyone may read it")
        return found

    def directory(self, handle: bytes) -> str:
        """The path of a directory."""
        path, found = self.find(handle)
        if not stat.S_ISDIR(found.st_mode):
            raise OSError(ENOTDIR, "not a directory")
        return path

    def within(self, folder: str, name: str) -> tuple[str, os.stat_result]:
        """A file in a directory. Nothing is above the root."""
        if name == ".." and folder != self.folder:
            path = os.path.dirname(folder)
        elif name in (".", ".."):
            path = folder
        elif "/" in name or "\0" in name:
            raise OSError(ENOENT, "no name of a file")
        else:
            path = os.path.join(folder, name)
        found = self.look(path)
        self.paths[found.st_ino] = path
        return path, found


def handle_of(found: os.stat_result) -> bytes:
    """The handle of a file is its number."""
    return found.st_ino.to_bytes(8)


def attributes(found: os.stat_result) -> tuple[int, ...]:
    """``fattr3`` (2.6)."""
    times = (divmod(ns, 10**9) for ns in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns))
    return (
        FORMATS.index(stat.filemode(found.st_mode)[0]) + 1, stat.S_IMODE(found.st_mode),
        found.st_nlink, found.st_uid, found.st_gid, found.st_size, found.st_blocks * 512,
        os.major(found.st_rdev), os.minor(found.st_rdev), found.st_dev, found.st_ino,
        *(part for time in times for part in time),
    )  # fmt: skip


class Nfs(Export):
    """The procedures of NFS version 3 that read (RFC 1813, 3.3); what they raise is a status."""

    def getattr(self, handle: bytes) -> tuple[Any, ...]:
        return (attributes(self.find(handle)[1]),)

    def lookup(self, wanted: tuple[bytes, str]) -> tuple[Any, ...]:
        handle, name = wanted
        _, found = self.within(self.directory(handle), name)
        return handle_of(found), attributes(found), None

    def access(self, wanted: tuple[bytes, int]) -> tuple[Any, ...]:
        handle, rights = wanted
        return attributes(self.find(handle)[1]), rights & RIGHTS

    def readlink(self, handle: bytes) -> tuple[Any, ...]:
        path, found = self.find(handle)
        return attributes(found), os.readlink(path)

    def read(self, wanted: tuple[bytes, int, int]) -> tuple[Any, ...]:
        handle, offset, size = wanted
        path, found = self.find(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(EISDIR if stat.S_ISDIR(found.st_mode) else EINVAL, "not a file")
        if offset >= found.st_size:
            return attributes(found), 0, True, b""
        # What is opened has to be what was looked at, whatever becomes of the path meanwhile.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not os.path.samestat(os.fstat(descriptor), found):
                raise OSError(ESTALE, "another file has the path now")
            data = os.pread(file.fileno(), min(size, LARGEST), offset)
        return attributes(found), len(data), offset + len(data) >= found.st_size, data

    def readdir(self, wanted: tuple[bytes, int, bytes, int]) -> tuple[Any, ...]:
        handle, after, verifier, size = wanted
        return self.entries(handle, after, verifier, size)

    def readdirplus(self, wanted: tuple[bytes, int, bytes, int, int]) -> tuple[Any, ...]:
        handle, after, verifier, _, size = wanted
        return self.entries(handle, after, verifier, size, is_plus=True)

    def entries(
        self, handle: bytes, after: int, verifier: bytes, size: int, is_plus: bool = False
    ) -> tuple[Any, ...]:
        """The readable files of a directory, each with the number to go on after."""
        entries: list[tuple[Any, ...]] = []
        folder, left = self.directory(handle), min(size, LARGEST)
        names = [".", "..", *sorted(os.listdir(folder))]
        for number, name in enumerate(names[after:], after + 1):
            try:
                _, found = self.within(folder, name)
            except OSError:
                continue
            left -= ENTRY + len(os.fsencode(name))
            if left < 0 and entries:
                return None, verifier, entries, False
            more = (attributes(found), handle_of(found)) if is_plus else ()
            entries.append((found.st_ino, name, number, *more))
        return None, verifier, entries, True

    def fsstat(self, handle: bytes) -> tuple[Any, ...]:
        fs = os.statvfs(self.find(handle)[0])
        return None, fs.f_blocks * fs.f_frsize, 0, 0, fs.f_files, 0, 0, 0

    def fsinfo(self, handle: bytes) -> tuple[Any, ...]:
        self.find(handle)
        return None, *(LARGEST, LARGEST, 512) * 2, LARGEST, 2**63 - 1, 0, 1, 0x1B

    def pathconf(self, handle: bytes) -> tuple[Any, ...]:
        self.find(handle)
        return None, 1, 255, True, True, False, True


def answered(work: Callable[[Any], Any]) -> Callable[[Any, Request], tuple[int, Any]]:
    """A procedure that gives its status with its results."""

    def handle(arguments: Any, request: Request) -> tuple[int, Any]:
        try:
            return OK, work(arguments)
        except OSError as error:
            return STATUSES.get(error.errno or 0, IO), None

    return handle


def refused(number: int, size: int) -> Procedure[None, bytes]:
    """A procedure that writes: the status, and so many bytes that tell of no attributes."""
    reply = READ_ONLY.to_bytes(4) + bytes(size)
    return Procedure("write", number, VOID, rpc.BYTES, lambda arguments, request: reply)


def nfs(do: Nfs) -> Program:
    """NFS version 3."""
    entry = UHYPER, STRING, UHYPER
    more = POST, rpc.optional(HANDLE)
    rows: list[tuple[Callable[[Any], Any], int, Type[Any], Type[Any]]] = [
        (do.getattr, 1, HANDLE, results(ATTRIBUTES, failed=VOID)),
        (do.lookup, 3, rpc.fields(HANDLE, STRING), results(HANDLE, POST, POST)),
        (do.access, 4, rpc.fields(HANDLE, UINT), results(POST, UINT)),
        (do.readlink, 5, HANDLE, results(POST, rpc.string(4_096))),
        (do.read, 6, rpc.fields(HANDLE, UHYPER, UINT), results(POST, UINT, BOOL, OPAQUE)),
        (do.readdir, 16, rpc.fields(HANDLE, UHYPER, rpc.fixed(8), UINT),
         results(POST, rpc.fixed(8), rpc.chain(rpc.fields(*entry)), BOOL)),
        (do.readdirplus, 17, rpc.fields(HANDLE, UHYPER, rpc.fixed(8), UINT, UINT),
         results(POST, rpc.fixed(8), rpc.chain(rpc.fields(*entry, *more)), BOOL)),
        (do.fsstat, 18, HANDLE, results(POST, *[UHYPER] * 6, UINT)),
        (do.fsinfo, 19, HANDLE, results(POST, *[UINT] * 7, UHYPER, UINT, UINT, UINT)),
        (do.pathconf, 20, HANDLE, results(POST, UINT, UINT, *[BOOL] * 4)),
    ]  # fmt: skip
    reading = (Procedure(w.__name__, n, a, r, answered(w)) for w, n, a, r in rows)
    writing = (refused(n, 8) for n in (2, 7, 8, 9, 10, 11, 12, 13, 21))
    return Program("nfs", 100003, 3, *reading, *writing, refused(14, 16), refused(15, 12))


def mount(export: Export) -> Program:
    """MOUNT version 3, which gives the handle of the root (RFC 1813, 5)."""

    def mnt(path: str) -> tuple[Any, ...]:
        folder, root = export.folder, export.look(export.folder)
        for name in os.path.relpath(path or "/", folder).split("/"):
            folder, root = export.within(folder, name)
            if name == ".." or not stat.S_ISDIR(root.st_mode):
                raise OSError(ENOENT, "not a directory of the export")
        # AUTH_NONE and AUTH_SYS will do.
        return handle_of(root), (0, 1)

    given = results(HANDLE, rpc.array(UINT), failed=VOID)
    mounts = rpc.chain(rpc.fields(STRING, STRING))
    exports = rpc.chain(rpc.fields(STRING, rpc.chain(STRING)))
    procedures = (
        Procedure("MNT", 1, STRING, given, answered(mnt)),
        Procedure("DUMP", 2, VOID, mounts, lambda arguments, request: ()),
        Procedure("UMNT", 3, STRING, VOID, lambda path, request: None),
        Procedure("UMNTALL", 4, VOID, VOID, lambda arguments, request: None),
        Procedure("EXPORT", 5, VOID, exports, lambda arguments, request: ((export.folder, ()),)),
    )
    return Program("mountd", 100005, 3, *procedures)


if __name__ == "__main__":
    folder = Nfs(sys.argv[1])
    rpc.run(nfs(folder), mount(folder))
