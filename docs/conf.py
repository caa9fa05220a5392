"""How Sphinx builds the pages."""

from portmapd import __version__

project = "portmapd"
author = "the portmapd authors"
project_copyright = "2026, the portmapd authors"
release = version = __version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # No inventory of other projects is fetched: a build needs no network.
    ("py:.*", r"(?!portmapd).*"),
    # What the methods of a client return, which its own page says.
    ("py:class", r"portmapd\.client\.portmapper\.(None|Services|Mappings|Path|Status)T"),
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
