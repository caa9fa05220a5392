"""Print the services of another machine: ``remote.py www.example.com``."""

import sys

from portmapd.client.blocking import Portmapper

with Portmapper(host=sys.argv[1]) as portmapper:
    for service in portmapper.list():
        print(service.name, service.port)
