"""The directive ``daemon-options``: the table of the daemon's options, as a page."""

from collections.abc import Iterator

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.application import Sphinx

from portmapd.options import OPTIONS, Group, Option


def _words(option: Option) -> list[str]:
    """How an option is given on a command line."""
    value = f" {option.metavar}" if option.metavar else ""
    short = [f"-{option.letter}{value}"] if option.letter else []
    return [*short, f"--{option.name}{value}"]


def _lines(option: Option) -> list[str]:
    """How an option is given in the file."""
    if option.is_flag:
        return [f"{option.name} = true"]
    value = f'"{option.metavar}"'
    return [f"{option.name} = {f'[{value}, ...]' if option.repeated else value}"]


_FORMS = {"command": _words, "file": _lines}


def _form(argument: str) -> str:
    return directives.choice(argument, tuple(_FORMS))


class DaemonOptions(Directive):
    """Every option, grouped as in the help, as ``command`` lines or as lines of the ``file``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return list(self._groups(_form(self.arguments[0])))

    def _groups(self, form: str) -> Iterator[nodes.Node]:
        for group in Group:
            yield nodes.rubric("", group.value)
            listed = [_item(option, form) for option in OPTIONS if option.group is group]
            yield nodes.definition_list("", *listed)


def _item(option: Option, form: str) -> nodes.definition_list_item:
    spelt = [nodes.literal("", each) for each in _FORMS[form](option)]
    term = nodes.term("", "", spelt[0])
    for each in spelt[1:]:
        term += [nodes.Text(", "), each]
    text = option.description.replace(" [default: ", " Default: ").removesuffix("]")
    said = nodes.paragraph("", text if text.endswith(".") else f"{text}.")
    return nodes.definition_list_item("", term, nodes.definition("", said))


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive to Sphinx."""
    app.add_directive("daemon-options", DaemonOptions)
    return {"parallel_read_safe": True}
