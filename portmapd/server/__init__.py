"""Twisted: what serves the registry over sockets.

Internal, but for what :mod:`portmapd` names.
"""
