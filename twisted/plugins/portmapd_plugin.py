"""Makes ``twistd portmapd`` known; the module it names is imported only when it is chosen."""

from twisted.application.service import ServiceMaker

portmapd = ServiceMaker(
    "portmapd",
    "portmapd.tap",
    "A port mapper: RPC program 100000, versions 2, 3 and 4.",
    "portmapd",
)
