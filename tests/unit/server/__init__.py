"""The server's Twisted side."""
