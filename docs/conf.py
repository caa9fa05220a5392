"""How Sphinx builds the pages."""

import sys
from pathlib import Path

from portmapd import __version__

sys.path.append(str(Path(__file__).with_name("_ext")))

project = "portmapd"
author = "the portmapd authors"
project_copyright = "2026, the portmapd authors"
release = version = __version__

extensions = ["sphinx.ext.autodoc", "daemon_options", "news", "performance"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # An interface, of which an application has a finished value.
    ("py:class", r"portmapd\.server\.cluster\.Cluster"),
    # No inventory of other projects is fetched: a build needs no network.
    ("py:.*", r"(?!portmapd).*"),
    # What the methods of a client return, which its own page says.
    (
        "py:class",
        r"portmapd\.client\.portmapper\.(None|Services|Mappings|Path|Status|Shared|SharedMappings|Cluster)T",
    ),
    (
        "py:class",
        r"portmapd\.client\.rpc\.portmap_client\.(None|Bool|Int|Str|Pmaps|Rpcbs|Result|Entries|Stats)T",
    ),
    # Type variables.
    ("py:class", r"portmapd\.(oncrpc\.types|oncrpc\.xdr|rpc\.program)\.[A-Z]"),
]

html_theme = "furo"
html_title = f"portmapd {version}"
html_static_path = ["_static"]
html_css_files = ["code.css"]

autodoc_member_order = "bysource"

man_pages = [
    ("man/portmapd", "portmapd", "port mapper for ONC RPC and for named services", author, "8"),
    ("portmapctl", "portmapctl", "shell client of the port mapper portmapd", author, "1"),
    ("man/portmapd.toml", "portmapd.toml", "options of the port mapper portmapd", author, "5"),
]
