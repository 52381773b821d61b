"""YAML as plain data that remembers where every value stands, with a message for each of YAML's traps."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from gameday.experiment import survey
from gameday.experiment.problems import Path, Problem, dotted

Scalar = str | int | float | bool
_TAG = "tag:yaml.org,2002:"
# Dates, `=` and a stray `<<` are text here; numbers are made by `number`, which keeps what is not one.
_TEXT_TAGS = {f"{_TAG}{name}" for name in ("str", "timestamp", "value", "merge")}
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_BOUNDS = ("is", "during")


@dataclass
class Tree:
    """A parsed file. `problems` did not stop the parsing; `data` is None for an empty file."""

    file: str
    root: yaml.Node | None
    data: Any = None
    source: str = ""
    variables: dict[str, Scalar] = field(default_factory=dict)  # with which texts were rendered
    problems: list[Problem] = field(default_factory=list)
    mended: dict[tuple[int, int], str] = field(default_factory=dict)
    refused: set[Path] = field(default_factory=set)

    def problem(self, path: Path, message: str, hint: str | None, at_key: bool) -> Problem:
        line, column = self.position(path, at_key=at_key)
        return Problem(self.file, line, column, dotted(path), message, hint)

    def report(self, path: Path, message: str, hint: str | None = None, at_key: bool = False) -> None:
        """Note a problem, unless one was noted for this value: what follows from it is not worth a line."""
        if path not in self.refused:
            self.refused.add(path)
            self.problems.append(self.problem(path, message, hint, at_key))

    def position(self, path: Path, *, at_key: bool = False) -> tuple[int, int]:
        """(line, column) from 1 of a value, of its key, or of what is there of the things around it."""
        mark_of, node = self.root, self.root
        for part in path:
            key, value = _child(node, part)
            if value is None:
                continue  # a word of the model, not of the file
            node, mark_of = value, (key if key is not None and (at_key or _is_empty(value)) else value)
        mark = mark_of.start_mark if mark_of is not None else None
        return (mark.line + 1, mark.column + 1) if mark else (1, 1)

    def report_within(self, path: Path, offset: int, message: str, hint: str | None = None) -> None:
        """Note a problem with the character at `offset` of a text, as it was rendered."""
        node = self.root
        for part in path:
            _, node = _child(node, part)
        if path in self.refused or not isinstance(node, yaml.ScalarNode):
            self.report(path, message, hint)
            return
        from gameday.experiment import places
        from gameday.experiment.variables import written_at

        line, column = places.place(self.source, node, written_at(node.value, self.variables, offset))
        self.refused.add(path)
        self.problems.append(Problem(self.file, line, column, dotted(path), message, hint))

    def known(self, path: Path) -> Path:
        """The parts of a path that are in the file."""
        kept: list[str | int] = []
        node = self.root
        for part in path:
            _, value = _child(node, part)
            if value is not None or self.root is None:
                kept.append(part)
                node = value
        return tuple(kept)

    def written(self, path: Path) -> str | None:
        """The text of a plain scalar exactly as written, before YAML made a boolean or a number of it."""
        node = self.root
        for part in path:
            _, node = _child(node, part)
        return node.value if isinstance(node, yaml.ScalarNode) and not node.style else None


def parse(text: str, file: str) -> Tree:
    """Raises InvalidExperiment when the text is not one YAML document of bearable size."""
    sound, mended = survey.survey(text, file)
    root: yaml.Node | None = yaml.compose(sound, Loader=yaml.CSafeLoader)
    tree = Tree(file, root, source=sound, mended=mended)
    if root is not None:
        tree.data = _Builder(tree).build(root, ())
    for (line, column), message in mended.items():  # one that was merged over is still wrong
        if not any((each.line, each.column) == (line, column) for each in tree.problems):
            tree.problems.append(Problem(file, line, column, "", message))
    return tree


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    if isinstance(node, yaml.MappingNode):
        found = [
            pair for pair in node.value if isinstance(pair[0], yaml.ScalarNode) and pair[0].value == part
        ]
        if found:
            key, value = found[-1]
            return key, value
    return None, None


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.value and not node.style


class _Builder:
    """Makes plain data of nodes; the survey has bounded their number and depth."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def build(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self.check_tag(node, path, f"{_TAG}seq")
            return [self.build(each, (*path, index)) for index, each in enumerate(node.value)]
        return self.scalar(node, path) if isinstance(node, yaml.ScalarNode) else None

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        self.check_tag(node, path, f"{_TAG}map")
        built: dict[str, Any] = {}
        lines: dict[str, int] = {}
        node.value = self.merged(node, path)
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.refuse_complex_key(key_node, path)
                continue
            key = str(key_node.value)
            here = (*path, key)
            self.check_key(key_node, here)
            if key in built:
                self.fail(
                    key_node, here, f"the key is there twice, first in line {lines[key]}; expected it once"
                )
            lines[key] = key_node.start_mark.line + 1
            built[key] = self.build(value_node, here)
            if key in _BOUNDS or path == ("spec", "variables"):
                self.check_text(value_node, here)
        return built

    def merged(self, node: yaml.MappingNode, path: Path) -> list[tuple[yaml.Node, yaml.Node]]:
        """The pairs with `<<` resolved: what the mapping says itself goes before what it merges in."""
        own, taken = [], []
        for key, value in node.value:
            if key.tag != f"{_TAG}merge":
                own.append((key, value))
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(source, yaml.MappingNode):
                    taken += self.merged(source, path)
                else:
                    self.fail(key, (*path, "<<"), "expected a mapping to merge, as in `<<: *defaults`")
        seen = {key.value for key, _ in own if isinstance(key, yaml.ScalarNode)}
        for key, value in taken:
            if isinstance(key, yaml.ScalarNode) and key.value not in seen:
                seen.add(key.value)
                own.append((key, value))
        return own

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text = str(node.value)
        if message := self.tree.mended.get((node.start_mark.line + 1, node.start_mark.column + 1)):
            self.fail(node, path, message)
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return _BOOLEANS.get(text.lower(), text)
            case "int" | "float":
                return number(text)
        if node.tag not in _TEXT_TAGS:
            self.refuse_tag(node, path)
        return text

    def check_key(self, key: yaml.ScalarNode, path: Path) -> None:
        if key.tag in _TEXT_TAGS:
            return
        if key.tag == f"{_TAG}bool" and key.value.lower() not in ("true", "false"):
            read_as = str(_BOOLEANS[key.value.lower()]).lower()
            self.fail(key, path, f"YAML reads the key `{key.value}` as {read_as}; put it in quotes")
        else:
            self.fail(key, path, f"a key must be text; put `{key.value}` in quotes")

    def check_text(self, node: yaml.Node, path: Path) -> None:
        """Where a boolean and a block of text both could pass for what was meant, and neither is."""
        if not isinstance(node, yaml.ScalarNode):
            return
        if node.style in (">", "|") and path[-1] in _BOUNDS:
            self.fail(node, path, f"`{node.style}` starts a block of text in YAML; put the bound in quotes")
        elif is_loose_boolean(node.value) and node.tag == f"{_TAG}bool":
            self.fail(node, path, loose_boolean(node.value))

    def check_tag(self, node: yaml.Node, path: Path, expected: str) -> None:
        if node.tag != expected:
            self.refuse_tag(node, path)

    def refuse_tag(self, node: yaml.Node, path: Path) -> None:
        if node.tag.startswith("!=") or path[-1:] in (("is",), ("during",)):
            self.fail(node, path, "YAML reads a value that starts with `!` as a tag; put it in quotes")
        else:
            tag = node.tag.replace(_TAG, "!!")
            self.fail(
                node,
                path,
                f"the tag `{tag}` means nothing here; expected plain text, numbers, lists, mappings",
            )

    def refuse_complex_key(self, key: yaml.Node, path: Path) -> None:
        if isinstance(key, yaml.MappingNode) and key.flow_style:
            self.fail(key, path, "YAML reads unquoted `{{` as a mapping; put the whole value in quotes")
        else:
            self.fail(key, path, "a key must be text, found a list or a mapping")

    def fail(self, node: yaml.Node, path: Path, message: str) -> None:
        mark = node.start_mark
        self.tree.refused.add(path)
        self.tree.problems.append(
            Problem(self.tree.file, mark.line + 1, mark.column + 1, dotted(path), message)
        )


def is_loose_boolean(written: str | None) -> bool:
    return (written or "").lower() in {"yes", "no", "on", "off"}


def loose_boolean(written: str) -> str:
    meaning = str(_BOOLEANS[written.lower()]).lower()
    return f"YAML reads `{written}` as {meaning}; put it in quotes"


def number(text: str) -> int | float | str:
    """The number, or the text itself where YAML 1.1 sees one and people do not (`1:30`, `010`, `.inf`)."""
    digits = text.replace("_", "")
    if re.fullmatch(r"[+-]?(0|[1-9]\d{0,30})", digits):
        return int(digits)
    if re.fullmatch(r"[+-]?\d[\d.]*([eE][+-]?\d+)?|[+-]?\.\d+([eE][+-]?\d+)?", digits) and "." in digits:
        value = float(digits) if digits.count(".") == 1 else math.inf
        return value if math.isfinite(value) else text
    return int(digits, 16) if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", digits) else text
