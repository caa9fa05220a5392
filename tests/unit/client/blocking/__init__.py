"""Tests of ``portmapd.client.blocking``."""
