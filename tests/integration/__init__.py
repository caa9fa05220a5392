"""Tests with real sockets, processes and programs."""
