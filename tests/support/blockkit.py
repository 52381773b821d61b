"""Block Kit's rules as Slack documents them, because one bad block makes Slack refuse a whole message.

Sources: docs.slack.dev/reference/block-kit (blocks, composition objects), each rule beside its block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

Block = dict[str, Any]

MAX_BLOCKS = 50
MAX_MARKDOWN = 12_000  # all markdown blocks of a message together
MAX_TABLE_TEXT = 10_000  # all cells of a message's table together


def problems(blocks: Any) -> list[str]:
    """What Slack would say is wrong with a message's blocks, in its words as far as they are known."""
    if not isinstance(blocks, list):
        return ["must be an array [json-pointer:/blocks]"]
    return list(_message(blocks))


def _message(blocks: list[Any]) -> Iterator[str]:
    if len(blocks) > MAX_BLOCKS:
        yield f"no more than {MAX_BLOCKS} items allowed [json-pointer:/blocks]"
    for index, block in enumerate(blocks):
        yield from _block(block, f"/blocks/{index}")
    known = [block for block in blocks if isinstance(block, dict)]
    ids = Counter(block["block_id"] for block in known if "block_id" in block)
    for repeated in [name for name, count in ids.items() if count > 1]:
        yield f"block_id already exists: {repeated} [json-pointer:/blocks]"
    if sum(block.get("type") == "table" for block in known) > 1:
        yield "only_one_table_allowed [json-pointer:/blocks]"
    markdown = [block.get("text", "") for block in known if block.get("type") == "markdown"]
    if sum(map(len, markdown)) > MAX_MARKDOWN:
        yield f"all markdown must be less than {MAX_MARKDOWN + 1} characters [json-pointer:/blocks]"


def _block(block: Any, at: str) -> Iterator[str]:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str) or kind not in _BLOCKS:
        yield f"unsupported type: {kind} [json-pointer:{at}/type]"
        return
    keys, check = _BLOCKS[kind]
    for key in block.keys() - keys - {"type", "block_id"}:
        yield f"invalid additional property: {key} [json-pointer:{at}]"
    yield from _string(block.get("block_id"), f"{at}/block_id", most=255, required=False)
    yield from check(block, at)


def _header(block: Block, at: str) -> Iterator[str]:
    yield from _text(block.get("text"), f"{at}/text", most=150, kinds=("plain_text",))


def _section(block: Block, at: str) -> Iterator[str]:
    if "text" not in block and "fields" not in block:
        yield f"missing required field: text or fields [json-pointer:{at}]"
    if "text" in block:
        yield from _text(block["text"], f"{at}/text", most=3000)
    if "fields" in block:
        yield from _items(block["fields"], f"{at}/fields", most=10)
        for index, field in enumerate(block["fields"]):
            yield from _text(field, f"{at}/fields/{index}", most=2000)
    if "accessory" in block:
        yield from _element(block["accessory"], f"{at}/accessory")


def _context(block: Block, at: str) -> Iterator[str]:
    yield from _items(block.get("elements"), f"{at}/elements", most=10)
    for index, element in enumerate(block.get("elements") or []):
        where = f"{at}/elements/{index}"
        if element.get("type") == "image":
            yield from _element(element, where)
        else:
            yield from _text(element, where, most=3000)


def _actions(block: Block, at: str) -> Iterator[str]:
    yield from _items(block.get("elements"), f"{at}/elements", most=25)
    for index, element in enumerate(block.get("elements") or []):
        yield from _element(element, f"{at}/elements/{index}")


def _image(block: Block, at: str) -> Iterator[str]:
    yield from _string(block.get("alt_text"), f"{at}/alt_text", most=2000)
    if ("image_url" in block) == ("slack_file" in block):
        yield f"exactly one of image_url and slack_file is required [json-pointer:{at}]"
    yield from _string(block.get("image_url"), f"{at}/image_url", most=3000, required=False)
    if "slack_file" in block and block["slack_file"].keys() not in ({"id"}, {"url"}):
        yield f"exactly one of id and url is required [json-pointer:{at}/slack_file]"
    if "title" in block:
        yield from _text(block["title"], f"{at}/title", most=2000, kinds=("plain_text",))


def _table(block: Block, at: str) -> Iterator[str]:
    rows = block.get("rows")
    yield from _items(rows, f"{at}/rows", most=100)
    total = 0
    for y, row in enumerate(rows or []):
        yield from _items(row, f"{at}/rows/{y}", most=20)
        for x, cell in enumerate(row):
            where = f"{at}/rows/{y}/{x}"
            if cell.get("type") == "raw_text":
                yield from _string(cell.get("text"), f"{where}/text", most=MAX_TABLE_TEXT)
            elif cell.get("type") == "rich_text":
                yield from _rich_text(cell, where)
            else:
                yield f"unsupported type: {cell.get('type')} [json-pointer:{where}/type]"
            total += _length(cell)
    if total > MAX_TABLE_TEXT:
        yield f"must be less than {MAX_TABLE_TEXT + 1} characters in all cells [json-pointer:{at}/rows]"
    settings = block.get("column_settings", [])
    if len(settings) > 20:
        yield f"no more than 20 items allowed [json-pointer:{at}/column_settings]"
    for index, column in enumerate(settings):
        if column is not None and column.get("align", "left") not in ("left", "center", "right"):
            yield f"unsupported value: {column['align']} [json-pointer:{at}/column_settings/{index}/align]"


def _markdown(block: Block, at: str) -> Iterator[str]:
    yield from _string(block.get("text"), f"{at}/text", most=MAX_MARKDOWN)


def _rich_text(block: Block, at: str) -> Iterator[str]:
    allowed = {"rich_text_section", "rich_text_list", "rich_text_preformatted", "rich_text_quote"}
    yield from _items(block.get("elements"), f"{at}/elements", most=None)
    for index, element in enumerate(block.get("elements") or []):
        if element.get("type") not in allowed:
            yield f"unsupported type: {element.get('type')} [json-pointer:{at}/elements/{index}/type]"
        if "elements" not in element:
            yield f"missing required field: elements [json-pointer:{at}/elements/{index}]"


def _divider(block: Block, at: str) -> Iterator[str]:
    return iter(())


def _element(element: Any, at: str) -> Iterator[str]:
    """A button or an image; what gameday has no use for is left out and refused."""
    kind = element.get("type")
    if kind == "image":
        yield from _image({key: value for key, value in element.items() if key != "title"}, at)
    elif kind == "button":
        yield from _text(element.get("text"), f"{at}/text", most=75, kinds=("plain_text",))
        yield from _string(element.get("action_id"), f"{at}/action_id", most=255, required=False)
        yield from _string(element.get("url"), f"{at}/url", most=3000, required=False)
        yield from _string(element.get("value"), f"{at}/value", most=2000, required=False)
    else:
        yield f"unsupported type: {kind} [json-pointer:{at}/type]"


def _text(
    value: Any, at: str, *, most: int, kinds: tuple[str, ...] = ("plain_text", "mrkdwn")
) -> Iterator[str]:
    """A text object; `emoji` belongs to plain_text, `verbatim` to mrkdwn."""
    if not isinstance(value, dict):
        yield f"missing required field: text [json-pointer:{at}]"
        return
    if value.get("type") not in kinds:
        yield f"unsupported type: {value.get('type')}, must be {' or '.join(kinds)} [json-pointer:{at}/type]"
    option = {"plain_text": "emoji", "mrkdwn": "verbatim"}.get(value.get("type", ""), "")
    for key in value.keys() - {"type", "text", option}:
        yield f"invalid additional property: {key} [json-pointer:{at}]"
    yield from _string(value.get("text"), f"{at}/text", most=most)


def _string(value: Any, at: str, *, most: int, required: bool = True) -> Iterator[str]:
    if value is None and not required:
        return
    if not isinstance(value, str):
        yield f"must be a string [json-pointer:{at}]"
    elif not value:
        yield f"must be more than 0 characters [json-pointer:{at}]"
    elif len(value) > most:
        yield f"must be less than {most + 1} characters [json-pointer:{at}]"


def _items(value: Any, at: str, *, most: int | None) -> Iterator[str]:
    if not isinstance(value, list) or not value:
        yield f"no fewer than 1 items allowed [json-pointer:{at}]"
    elif most is not None and len(value) > most:
        yield f"no more than {most} items allowed [json-pointer:{at}]"


def _length(value: Any) -> int:
    """The characters that a reader sees in a cell, however deep its text lies."""
    if isinstance(value, list):
        return sum(map(_length, value))
    if isinstance(value, dict):
        return len(value.get("text", "")) + _length(value.get("elements", []))
    return 0


# type -> (its own keys, its check)
_BLOCKS: dict[str, tuple[set[str], Callable[[Block, str], Iterator[str]]]] = {
    "actions": ({"elements"}, _actions),
    "context": ({"elements"}, _context),
    "divider": (set(), _divider),
    "header": ({"text"}, _header),
    "image": ({"alt_text", "image_url", "slack_file", "title"}, _image),
    "markdown": ({"text"}, _markdown),
    "rich_text": ({"elements"}, _rich_text),
    "section": ({"text", "fields", "accessory", "expand"}, _section),
    "table": ({"rows", "column_settings"}, _table),
}
