"""Tests of ``portmapd.client.twisted``."""
