"""A port mapper: RPC program 100000, versions 2 to 4, as a Twisted service.

Importing this package imports nothing else.
"""

__version__ = "0.1.0"
