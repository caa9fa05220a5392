"""Greet the first client. The system chooses the port; clients find it by name."""

import socket

from portmapd.client.blocking import Portmapper

with socket.create_server(("127.0.0.1", 0)) as server, Portmapper() as portmapper:
    portmapper.reg("greeter.example.com", server)
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"hello\n")
