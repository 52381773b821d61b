"""Reading a file that somebody else wrote: nothing is believed about it until it was checked."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from gameday.experiment.problems import InvalidExperiment, Problem

LARGEST = 1024 * 1024
# What YAML allows: https://yaml.org/spec/1.1/#c-printable
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read(path: Path) -> str:
    """The text of a file. Raises InvalidExperiment for all but a readable text of at most 1 MiB."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise _refused(path, "is a directory; expected a YAML file")
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, "is not a regular file; expected a YAML file")
        if found.st_size > LARGEST:
            raise _refused(path, f"is {found.st_size / LARGEST:.1f} MiB; an experiment has at most 1 MiB")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise _refused(path, "does not exist") from None
    except (OSError, ValueError) as error:
        raise _refused(path, f"can't be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > LARGEST:
        raise _refused(path, "is larger than 1 MiB")
    return decode(content, str(path))


def decode(content: bytes, file: str) -> str:
    """Bytes as text that YAML can hold. Raises InvalidExperiment with the place of the first other byte."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        found = "it is UTF-16" if utf16 else f"found the byte 0x{content[error.start]:02x}"
        raise _at(file, before, f"the file is not UTF-8 text; {found}") from None
    if bad := _NOT_YAML.search(text):
        name = "a NUL byte" if bad[0] == "\0" else f"the control character U+{ord(bad[0]):04X}"
        raise _at(file, text[: bad.start()], f"found {name}; expected text")
    return text


def _refused(path: Path, message: str) -> InvalidExperiment:
    return InvalidExperiment([Problem(str(path), 0, 0, "", message)])


def _at(file: str, before: str, message: str) -> InvalidExperiment:
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return InvalidExperiment([Problem(file, line, column, "", message)])
