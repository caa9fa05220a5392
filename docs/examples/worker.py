"""A worker of the dispatcher."""

from pathlib import Path

from portmapd.client.blocking import Portmapper

WORKER = "worker.example.com"
FRONT = "front.example.com"

with Portmapper(str(Path("dispatcher.sock").resolve())) as portmapper:
    portmapper.reg(WORKER, [9101, 9102])
    for service in portmapper.list([WORKER, FRONT]):
        print(f"{service.name}: pid {service.pid} of user {service.user}, port {service.port}")
