"""A port mapper on port 10111, for this host alone, in a twistd application file."""

from twisted.application.service import Application
from twisted.internet import reactor

from portmapd import Config, PortmapperService

config = Config(port=10111, rpc_socket=None, local_socket=None)

application = Application("portmapd")
PortmapperService(config, reactor).setServiceParent(application)
