"""The fast engine below the protocols: an epoll group, transports of our own, recvmmsg.

Internal.
"""
