"""All that one process passes on to another, as bytes.

An image is a line that names the format, its version, and the checksum of the rest; and a value of
JSON::

    portmapd-image 1 5b0e…
    {"registry": …, "listening": …, …}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from portmapd.errors import InvalidState

#: How an image begins: the name of the format, and its version.
FORMAT = "portmapd-image"
#: The version that is written, and those that are read.
VERSION = 1
READ = (1,)

_HEADER = re.compile(rb"portmapd-image (\d{1,9}) ([0-9a-f]{64})\n")


def encode_image(value: Mapping[str, Any]) -> bytes:
    """The image of a value of JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return f"{FORMAT} {VERSION} {sha256(body).hexdigest()}\n".encode() + body


def decode_image(data: bytes) -> dict[str, Any]:
    """Read an image.

    :raises InvalidState: it is of another version, incomplete or malformed; the message says what.
    """
    header = _HEADER.match(data)
    if header is None:
        raise InvalidState("it is empty" if not data else "it is not an image of portmapd")
    if int(header[1]) not in READ:
        raise InvalidState(f"it is of version {int(header[1])}, and this reads version {VERSION}")
    body = data[header.end() :]
    if sha256(body).hexdigest().encode() != header[2]:
        raise InvalidState("its checksum is wrong: it is incomplete or damaged")
    try:
        value = json.loads(body)
    except ValueError as error:
        raise InvalidState(f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidState("it is not an object of JSON")
    return value
