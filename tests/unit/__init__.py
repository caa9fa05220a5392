"""Tests of single modules, without real sockets but for loopback pairs."""
