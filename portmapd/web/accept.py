"""Which form of a listing a caller wants (RFC 9110, 12.5.1)."""

from collections.abc import Sequence

from portmapd.web.query import RequestRefused


def choose(accept: str, offered: Sequence[str]) -> str:
    """The media type that *accept* prefers.

    :param accept: the header field; empty: any.
    :param offered: what there is; of equals, the first one is chosen.
    :raises RequestRefused: none of them is wanted.
    """
    if not accept.strip():
        return offered[0]
    ranges = [_range(text) for text in accept.split(",")]
    best = max(offered, key=lambda kind: _quality(kind, ranges))
    if _quality(best, ranges) <= 0:
        raise RequestRefused(406, f"there is no such form; ask for {', '.join(offered)}")
    return best


def _range(text: str) -> tuple[str, float]:
    """A media range, and how much it is wanted."""
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    weights = [p.removeprefix("q=") for p in parameters if p.startswith("q=")]
    try:
        return name, float(weights[0]) if weights else 1.0
    except ValueError:
        return name, 0.0


def _quality(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    """How much *kind* is wanted: what is said of it most precisely counts."""
    said = dict(ranges)
    for name in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        if name in said:
            return said[name]
    return 0.0
