"""Something at a socket path that is not a daemon."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def impostor(path: Path, behave: Callable[[socket.socket], object]) -> Iterator[str]:
    """Serve something that is not a daemon, in the block; gives its path.

    :param behave: is given each connection.
    """
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        with suppress(OSError):
            while True:
                skt, _ = server.accept()
                with skt, suppress(OSError):
                    behave(skt)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield str(path)
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()
