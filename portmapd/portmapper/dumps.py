"""The results of DUMP: a list of every mapping, which may be very long."""

from collections.abc import Callable, Iterator, Sequence

from portmapd.oncrpc import xdr
from portmapd.registry.mapping import FIRST, Mapping, Mappings, Run

#: Parts have so many bytes, or more by one run of mappings.
PART = 16_384
#: While there are no more mappings, their encodings are kept; more would take too much memory.
MAX_KEPT = 131_072

#: Encodes mappings as items of a list (RFC 4506, 4.19): TRUE before each.
EncodeItems = Callable[[Sequence[Mapping]], bytes]

_END = xdr.uint(False)


class Dumps:
    """Lists of all mappings, encoded in parts.

    A run of mappings is encoded once, until one of it changes, and all lists share that: neither a
    change nor a caller who does not read makes everything be encoded, or kept, again.

    :param mappings: what is listed.
    """

    def __init__(self, mappings: Mappings) -> None:
        self._mappings = mappings

    def parts(self, version: int, encode: EncodeItems) -> Iterator[bytes]:
        """The list in *version*, each part made when it is asked for.

        What is registered all that time is in it once. What changes meanwhile may be in it or not.
        """
        gathered: list[bytes] = []
        size, key = 0, FIRST
        while (run := self._mappings.run_after(key)) is not None:
            gathered.append(self._encoded(run, version, encode))
            size += len(gathered[-1])
            key = run.last
            if size >= PART:
                yield b"".join(gathered)
                gathered.clear()
                size = 0
        yield b"".join((*gathered, _END))

    def _encoded(self, run: Run, version: int, encode: EncodeItems) -> bytes:
        if run.encoded is None:
            run.encoded = {}
        encoded = run.encoded.get(version)
        if encoded is None:
            encoded = encode(run.rows)
            if len(self._mappings) <= MAX_KEPT:
                run.encoded[version] = encoded
        return encoded
