"""The client of program 100000, for port mappers of any make.

Internal, but for what :mod:`portmapd.client` names.
"""
