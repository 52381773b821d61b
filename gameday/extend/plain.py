"""Plain data that nobody changes: what a plan holds, and what a fault leaves for its evidence."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NoReturn


def _refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
    raise TypeError("plans and records of an injection are not changed: copy.deepcopy gives a copy to change")


class FrozenDict(dict[str, Any]):
    """A mapping that can't be changed; `copy.deepcopy` makes a common one of it."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {key: copy.deepcopy(value, memo) for key, value in self.items()}


class FrozenList(list[Any]):
    """A list that can't be changed; `copy.deepcopy` makes a common one of it."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [copy.deepcopy(value, memo) for value in self]


def freeze(value: Any) -> Any:
    """The same data, unchangeable all the way down. Raises TypeError for what JSON does not know."""
    if value is None or isinstance(value, FrozenDict | FrozenList | str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return FrozenDict({str(key): freeze(inner) for key, inner in value.items()})
    if isinstance(value, list | tuple):
        return FrozenList(freeze(inner) for inner in value)
    raise TypeError(f"a {type(value).__name__} is not plain data: {value!r}")
