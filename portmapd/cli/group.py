"""Groups of commands: their help is whole, their commands are imported when they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from portmapd.cli.exit import output_failed
from portmapd.cli.text import SHOWN

#: More than any summary has: none is cut.
_WHOLE = 1_000


class Commands(click.Group):
    """Commands whose output may fail: a closed pipe, a full disk.

    :param table: by its name, where each command is: module, colon, and what it is called there.
    """

    def __init__(self, *words: Any, table: Mapping[str, str], **options: Any) -> None:
        super().__init__(*words, **options)
        self._table = table

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, context: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module, _, name = self._table[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self._table and not args[0].startswith("-"):
            close = get_close_matches(args[0], self._table, 1)
            likely = f" (did you mean {close[0]}?)" if close else ""
            ctx.fail(f"there is no command {args[0][:SHOWN]!r}{likely}")
        return super().resolve_command(ctx, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self._table:
            command = self.get_command(context, name)
            assert command is not None
            rows.append((name, command.get_short_help_str(_WHOLE)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(context)
        except OSError as error:
            raise output_failed(error) from None
