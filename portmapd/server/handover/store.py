"""What a service manager keeps of a process that ends, and gives to the next one.

systemd keeps descriptors for a service (``FileDescriptorStoreMax=``) until it is stopped. It
compares each new one with all that it has, so it is given a single one: a socket in which all
others lie, with the image, as one message of a hand-over that nobody has received yet.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import BinaryIO

from portmapd.errors import HandoverFailed, InvalidState
from portmapd.server.handed_in_sockets import HandedInDescriptor
from portmapd.server.handover.image import decode_image, encode_image
from portmapd.server.handover.marks import Marks
from portmapd.server.handover.passed import Descriptors, Received
from portmapd.server.handover.taken_over import TakenOver
from portmapd.server.handover.talk import Talk
from portmapd.server.service_notification import notify

#: What the descriptor is called.
NAME = "portmapd-image"
#: How many descriptors the manager keeps for the service. systemd tells that from version 254 on;
#: for earlier ones the unit does.
VARIABLE = "FDSTORE"
#: Seconds within which the message has to be written, or read.
PATIENCE = 2.0
_WORD = "kept"


class DescriptorStore:
    """The manager's store, as far as it is this service's.

    :param environ: says whether there is one.
    :param send: sends lines, and descriptors, to the manager.
    :ivar is_there: whether there is one.
    """

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        send: Callable[..., bool] = notify,
    ) -> None:
        count = environ.get(VARIABLE, "")
        self.is_there = count.isdecimal() and int(count) > 0 and "NOTIFY_SOCKET" in environ
        self._send = send

    def keep(self, image: Mapping[str, object], descriptors: Descriptors, marks: Marks) -> bool:
        """Have an image kept, in place of the one before.

        :param image: a value of JSON.
        :param descriptors: those that it refers to.
        :param marks: tell of which of its connections it is not true any more.
        :return: False: none is kept.
        """
        self.clear()
        try:
            return self._keep(encode_image(image), [marks.fileno(), *descriptors.numbers])
        except (OSError, HandoverFailed):
            return False

    def _keep(self, image: bytes, descriptors: Sequence[int]) -> bool:
        ours, kept = socket.socketpair()
        with kept, closing(Talk(ours)) as talk, _written(image) as file:
            talk.limit(PATIENCE)
            talk.send(_WORD, b"", [file.fileno(), *descriptors])
            # The other end is closed: a manager that polls for that would give it up.
            lines = ("FDSTORE=1", f"FDNAME={NAME}", "FDPOLL=0")
            return self._send(*lines, descriptors=[kept.fileno()])

    def clear(self) -> None:
        """Have nothing kept any more."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={NAME}")


def _written(data: bytes) -> BinaryIO:
    """A file in memory: a socket has no room for a long image."""
    file = os.fdopen(os.memfd_create("image", os.MFD_CLOEXEC), "r+b")
    try:
        file.write(data)
        file.flush()
    except OSError:
        file.close()
        raise
    return file


def take_kept(descriptors: Sequence[HandedInDescriptor]) -> TakenOver | None:
    """What the manager kept of a process that has ended.

    :param descriptors: those that the manager has handed in; the ones from its store are closed.
    :return: None: it kept nothing.
    :raises InvalidState: it cannot be used; the message says why.
    """
    kept = [each.number for each in descriptors if is_kept(each)]
    for number in kept[1:]:
        os.close(number)
    return _read(kept[0]) if kept else None


def is_kept(descriptor: HandedInDescriptor) -> bool:
    """Whether a descriptor is from the manager's store, rather than a socket's."""
    return descriptor.name == NAME


def _read(number: int) -> TakenOver:
    """The image that lies in a socket; the socket is closed."""
    try:
        talk = Talk(socket.socket(fileno=number))
    except OSError as error:
        os.close(number)
        raise InvalidState("it is not in a socket") from error
    try:
        talk.limit(PATIENCE)
        _, numbers = talk.expect(_WORD)
    except HandoverFailed as error:
        raise InvalidState(str(error)) from error
    finally:
        talk.close()
    received = Received(numbers)
    try:
        file, marks = received.take(0), received.take(1)
        with os.fdopen(marks, "rb"), os.fdopen(file, "rb") as image:
            image.seek(0)
            touched = Marks.read(marks)
            rest = received.after(2)
            try:
                return TakenOver(decode_image(image.read()), rest, touched).without_touched()
            except BaseException:
                rest.close()
                raise
    except (OSError, ValueError, LookupError, TypeError, InvalidState) as error:
        received.close()
        raise InvalidState(str(error) or repr(error)) from error
