"""The language of RPC."""
