"""Text from elsewhere that can do nothing to whoever reads it: what would not be seen is made visible."""

from __future__ import annotations

import re

# Control characters but for tab and newline; and marks that hide, reorder or join what stands around them
# (Unicode, General_Category Cc, Cf, Zl and Zp; the surrogates that a broken file name or message leaves).
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """`text` with every character that is not seen written out: an escape as ␛, U+202E as <U+202E>."""
    return text if text.isascii() and text.isprintable() else _UNSEEN.sub(_name, text)


def one_line(text: str) -> str:
    """As `visible`, without line ends and tabs: text that can't pretend to be a line of its own."""
    return visible(text).replace("\n", "␊").replace("\t", " ")


def _name(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"<U+{code:04X}>"
