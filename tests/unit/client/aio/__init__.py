"""Tests of ``portmapd.client.aio``."""
