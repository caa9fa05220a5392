"""Fuzzing: what takes bytes from others is given any bytes whatever. See ``CONTRIBUTING.md``."""
