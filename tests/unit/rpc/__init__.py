"""Tests of portmapd.rpc."""
