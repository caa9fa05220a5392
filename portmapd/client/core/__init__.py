"""What a client of the local channel does, written once; it imports no I/O. Internal.

The operations are coroutines over a connection that a client provides: a Twisted protocol, an
asyncio one, or a plain socket that blocks.
"""
