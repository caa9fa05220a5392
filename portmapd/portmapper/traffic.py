"""How many bytes came in and went out."""


class Traffic:
    """The bytes of messages on one transport since the start, record marks included.

    :ivar received: from callers.
    :ivar sent: to callers.
    """

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = self.sent = 0
