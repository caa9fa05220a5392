"""Sockets: UDP, TCP and the rpcbind socket, forwarded calls, liveness."""
