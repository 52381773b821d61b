"""The program's package stands alone: it runs on whatever Python a node's image has."""

from __future__ import annotations

import ast
import sys

import pytest

from gameday.ledger.node_pod import program_files

OLDEST = (3, 9)
pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", sorted(program_files()))
def test_it_imports_the_standard_library_only(name: str) -> None:
    for node in ast.walk(ast.parse(program_files()[name])):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules = [node.module or ""]
        for module in modules:
            own = module == "gameday.node" or module.startswith("gameday.node.")
            assert own or module.partition(".")[0] in sys.stdlib_module_names, module


@pytest.mark.parametrize("name", sorted(program_files()))
def test_the_oldest_python_can_read_it(name: str) -> None:
    tree = ast.parse(program_files()[name], feature_version=OLDEST)
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Match)]
    first = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    lazy = any(a.name == "annotations" for n in first for a in n.names)
    assert lazy or not any(isinstance(n, ast.AnnAssign | ast.FunctionDef) for n in ast.walk(tree))


def test_all_of_it_fits_into_one_config_map() -> None:
    assert sum(len(text) for text in program_files().values()) < 500_000  # of the MiB that is allowed
