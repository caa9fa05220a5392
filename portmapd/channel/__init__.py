"""The local channel's language, pure bytes: AMP boxes, and the commands that travel in them.

``docs/protocol.rst`` tells what is said with them.
"""
