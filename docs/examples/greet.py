"""Print the greeting of the greeter."""

from portmapd.client.blocking import Portmapper

with Portmapper() as portmapper, portmapper.connect_any("greeter.example.com") as connection:
    print(connection.recv(100).decode(), end="")
