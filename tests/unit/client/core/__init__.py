"""Tests of ``portmapd.client.core``."""
