"""Packages whose `__init__` costs more than what is used of them."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def import_on_demand(package: str) -> None:
    """Let its subpackages be imported without its `__init__`, which runs when somebody asks for a name.

    That of `kubernetes` imports the synchronous client beside `kubernetes.aio`: a third of a second of
    every command. importlib's LazyLoader is of no use: importing a subpackage already asks for `__path__`.
    """
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    module, loader = importlib.util.module_from_spec(spec), spec.loader

    def missing(name: str) -> Any:
        if (begun := sys.modules.get(f"{package}.{name}")) is not None:
            return begun  # by a subpackage that is being imported
        del module.__dict__["__getattr__"]
        loader.exec_module(module)
        return getattr(module, name)

    module.__dict__["__getattr__"] = missing
    sys.modules[package] = module
    parent, _, name = package.rpartition(".")
    if parent:
        setattr(sys.modules[parent], name, module)  # as importing it would
