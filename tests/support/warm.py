"""Imports all modules but the sandbox's, and compiles the templates, for the programs that are forked."""

import pkgutil
from importlib import import_module

import gameday
from gameday.report import markdown, page

for module in pkgutil.walk_packages(gameday.__path__, "gameday."):
    if not module.name.startswith("gameday.sandbox.") and not module.name.endswith("__main__"):
        import_module(module.name)
page.template()
markdown.template()
