"""The language of the local channel."""
