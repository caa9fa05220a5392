"""Unit tests of ``portmapd.web``."""
