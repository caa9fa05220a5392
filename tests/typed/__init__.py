"""What type checkers make of an application's code: mypy and pyright read it, nothing runs it."""
