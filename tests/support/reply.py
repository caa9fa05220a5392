"""A program that replies to every call over UDP with the same results, from any of its addresses.

``python -m tests.support.reply HOST PORT RESULTS [FROM]``: the results in hexadecimal digits. It
says ``ready`` once it listens.
"""

import socket
import sys

from portmapd.errors import CallRefused, Unanswerable
from portmapd.oncrpc.message import decode_call, success


def _bound(host: str, port: str) -> socket.socket:
    skt = socket.socket(type=socket.SOCK_DGRAM)
    skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    skt.bind((host, int(port)))
    return skt


def _main(host: str, port: str, results: str, source: str = "") -> None:
    listening = _bound(host, port)
    replying = _bound(source, port) if source else listening
    print("ready", flush=True)
    while True:
        message, caller = listening.recvfrom(65_535)
        try:
            xid = decode_call(message).xid
        except (CallRefused, Unanswerable):
            continue
        replying.sendto(success(xid, bytes.fromhex(results)), caller)


if __name__ == "__main__":
    _main(*sys.argv[1:])
