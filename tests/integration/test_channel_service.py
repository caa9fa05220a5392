"""The local channel as a service of an application: alone, beside others, and with a port mapper."""

import os
import socket
from pathlib import Path

import pytest
from twisted.internet import reactor

from portmapd.channel.box import encode_box
from portmapd.errors import ConfigurationError
from portmapd.local.server import ChannelService
from portmapd.registry.change import Change, Kind
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from tests import stock
from tests.integration.embedded import asynchronous, serving
from tests.integration.test_channel_stock import connected, service
from tests.integration.talk import Served

