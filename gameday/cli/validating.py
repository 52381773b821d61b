"""`gameday validate` itself. An editor asks at each save: nothing is loaded but what checking needs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

INVALID = 2
TO_RUN = ("asyncio", "aiohttp")  # what faults and probes import at their top, and no check uses


def validate(files: Sequence[Path], sets: Sequence[str] = (), values: Path | None = None) -> int:
    """Check files and print every problem; the exit code."""
    # Looking for plugins of pydantic in each installed package takes longer than checking a file.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for name in TO_RUN:
        sys.modules.setdefault(name, _Later(name))
    from gameday.experiment.loader import assignment, load
    from gameday.experiment.problems import InvalidExperiment

    problems = 0
    for file in files:
        try:
            loaded = load(file, dict(assignment(text) for text in sets), values, secrets=False)
            if loaded.native is not None:
                _as_chaos_toolkit_does(file, loaded.native)
        except InvalidExperiment as invalid:
            problems += len(invalid.problems)
            for problem in invalid.problems:
                print(problem)
        else:
            print(f"{file}: ok")
            for warning in loaded.warnings:
                print(f"{file}: warning: {warning}")
    if problems:
        print(f"{problems} problem{'s' if problems != 1 else ''}", file=sys.stderr)
    return INVALID if problems else 0


def _as_chaos_toolkit_does(file: Path, native: dict[str, Any]) -> None:
    """Let Chaos Toolkit judge its own experiment. Raises InvalidExperiment."""
    import asyncio

    from gameday.experiment.problems import InvalidExperiment, Problem
    from gameday.platform.chaostoolkit import check_experiment
    from gameday.platform.errors import PlatformError

    try:
        asyncio.run(check_experiment(native))
    except PlatformError as error:
        raise InvalidExperiment([Problem(str(file), 0, 0, "", str(error))]) from None


class _Later(ModuleType):
    """A module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        self.__dict__.update(module.__dict__)
        return getattr(module, name)


def files_alone(arguments: Sequence[str]) -> list[Path]:
    """The files of a `validate` without options, which no command line parser need read; else none."""
    command, *files = arguments or [""]
    if command != "validate" or any(file[:1] in ("-", "") for file in files):
        return []
    return [Path(file) for file in files]
