"""Records as bytes: JSON lines, compressed into what a ConfigMap can hold, read whatever became of them."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterable
from typing import Any

from gameday.experiment.text import plural
from gameday.platform.objects import Object

RECORD_KEY = "entries.jsonl.gz"
LIMIT = 1_000_000  # bytes of a ConfigMap, base64 included; the API server refuses more than 1 MiB
LARGEST = 64 * 1024 * 1024  # bytes of a record's text; a small object can be made that unpacks to any size

UNPROVED = "unproved"  # the operation that stands for what a record of somebody else's may lack

Record = dict[str, Any]  # {"n": entry number, "step": …, "state": …, "op": the operation's data}


def pack(records: list[Record]) -> str:
    text = "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def unpack(config_map: Object) -> list[Record]:
    """The records of a ledger object. What can't be read of it is one record that says so."""
    try:
        packed = base64.b64decode(config_map["binaryData"][RECORD_KEY])
    except (KeyError, TypeError, ValueError) as error:
        return [damaged(0, f"{type(error).__name__}: {error}")]
    text, wrong = _inflate(packed)
    found, at = read_lines(text.splitlines())
    wrong = wrong or (f"line {at} is no record" if at else "")
    return [*found, *([damaged(len(found), wrong)] if wrong else [])]


def read_lines(lines: Iterable[str]) -> tuple[list[Record], int]:
    """The records of JSON lines, and the number of the first line that is none (0 when all are)."""
    found: list[Record] = []
    wrong = 0
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            found.append({**record, "n": int(record["n"]), "step": str(record["step"])})
        except (ValueError, KeyError, TypeError, RecursionError):
            wrong = wrong or number
    return found, wrong


def _inflate(packed: bytes) -> tuple[str, str]:
    """The text as far as it can be had, and what is wrong with the rest."""
    inflate, text = zlib.decompressobj(wbits=31), bytearray()
    try:
        for at in range(0, len(packed), 64):
            text += inflate.decompress(packed[at : at + 64])
            if len(text) > LARGEST:
                return "", "it is larger than any record"
    except zlib.error as error:
        return text.decode(errors="replace"), str(error)
    return text.decode(errors="replace"), "" if inflate.eof else "its end is missing"


def damaged(before: int, why: str) -> Record:
    """An entry in place of the changes of a record that could not be read."""
    told = f"{plural(before, 'change')} could be read, the rest could not: {why}"
    return _stands_for_the_rest("damaged", told)


def unproved() -> Record:
    """What stands for the changes that a record may have held before somebody else wrote it."""
    return _stands_for_the_rest(UNPROVED, "nothing proves that it is all that the run wrote")


def _stands_for_the_rest(op: str, why: str) -> Record:
    return {"n": 0, "step": "?", "state": "made", "op": {"op": op, "why": why}}
