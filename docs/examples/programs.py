"""Print which RPC programs a host serves: ``python programs.py [HOST [PORT]]``."""

import sys

from portmapd.client.blocking import PortmapClient
from portmapd.errors import PortmapdError

host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
port = int(sys.argv[2]) if len(sys.argv) > 2 else 111

try:
    with PortmapClient(host, port, transport="tcp", timeout=5) as client:
        programs = {row.program for row in client.dump_addresses()}
except PortmapdError as error:
    sys.exit(f"{host}: {error}")
print(*sorted(programs))
