"""Sessions of the documentation: commands, and what each of them prints."""

import re
import shlex
from collections.abc import Iterator
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

from attrs import frozen

from tests.support.namespace import TOP, Namespace

#: Between the outputs of a session's commands.
_SEPARATOR = "\x1e"


@frozen
class Step:
    """A command of a session, and what it prints; ``...`` in there stands for anything."""

    command: str
    output: str


def steps(session: str) -> Iterator[Step]:
    """Read a session: ``#`` or ``$`` before each command, ``>`` before its further lines."""
    for part in re.split(r"^[#$] ", session, flags=re.MULTILINE)[1:]:
        match = re.fullmatch(r"(.*(?:\n> .*)*)\n((?s:.*))", part)
        assert match, part
        yield Step(match[1].replace("\n> ", "\n"), match[2])


def play(
    namespace: Namespace,
    session: str,
    path: str,
    folder: Path = TOP,
    shell: tuple[str, ...] = ("bash",),
) -> None:
    """Run the commands of a session in the namespace.

    :param path: where they are found.
    :param folder: where they run.
    :param shell: what starts the shell that runs them.
    :raises AssertionError: one does not print what the session shows.
    """
    played = list(steps(session))
    script = f"cd {shlex.quote(str(folder))}\n"
    script += "".join(f"printf '\\x1e'\n{step.command}\n" for step in played)
    said = namespace.run(*shell, "-c", script, status=None, env={"PATH": path})
    outputs = said.split(_SEPARATOR)[1:]
    assert len(outputs) == len(played), said
    for step, output in zip(played, outputs, strict=True):
        same = OutputChecker().check_output(step.output, output, ELLIPSIS | NORMALIZE_WHITESPACE)
        assert same, f"{step.command}\nprinted: {output}\nthe page shows: {step.output}"
