"""Rich's console, in which only styles of ours have an effect (by itself, as Rich is slow to import)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from gameday.inert import visible
from gameday.masking import mask_text

_TRAILING = re.compile(r" +\n")


class InertConsole(Console):
    """Shows control characters of whatever is rendered, instead of sending them to the terminal.

    What goes into a file or a pipe has no blanks at the end of a line: Rich pads tables to the last column.
    """

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        text = super()._render_buffer(buffer)
        return text if self.is_terminal else _TRAILING.sub("\n", text)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """Text for a file or a pipe is not broken into lines: what is looked for there is in one piece."""
        if soft_wrap is None and not self.is_terminal:
            soft_wrap = all(isinstance(each, str | Text) for each in objects)
        super().print(*objects, soft_wrap=soft_wrap, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(mask_text(text)), **options)
