"""Fuzz one target until libFuzzer ends this process: python -m fuzz.process NAME OPTION..."""

import sys

import atheris

# What is imported here is told apart by what it executes; anything else is not worth the time.
with atheris.instrument_imports(include=["portmapd"]):
    from fuzz.targets import TARGETS

if __name__ == "__main__":
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name].run)
    atheris.Fuzz()
