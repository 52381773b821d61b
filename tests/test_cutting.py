"""A secret is masked before the text that holds it is cut: nobody knows a part of one for what it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gameday import masking
from gameday.defect import sentence
from gameday.experiment.text import shorten
from gameday.masking import LONGEST_READ, clip
from gameday.platform.argocd_failure import Diagnosis
from gameday.platform.errors import PlatformError
from gameday.probes.http import HttpSpec, _field
from gameday.run.evidence import _readable
from gameday.run.observe import _Events, _Scope

pytestmark = pytest.mark.fast
PRODUCT = Path(__file__).parents[1] / "gameday"
SECRET = "kP3a9Xq7Zt0LmN4vB2cR8yW1sE6uHdJ5fGkP3a9Xq7Zt0L"

# Bounds that count items of a list, by their names; a written number up to FEW does too.
ITEMS = re.compile(r"MOST(_\w+)?|\w*(LINES|READINGS)|ROWS|LANES|DRAWN|SHOWN|NAMED")
FEW = 10
# Texts that are cut elsewhere than in `masking`, and why. The simulated platform is not ours to mask.
ALLOWED = {
    r"experiment/chaostoolkit.py: re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')[:63]": "a name",
    "experiment/problems.py: str(word).lower().replace('_', '')[:100]": "compared with names, and not shown",
    "events.py: line[:80]": "looked at for its kind, and not shown",
    "faults/chaos_mesh.py: whole[:NAME_LIMIT - 9]": "an object's name, made of the run's",
    "faults/on_node.py: text[:46]": "an object's name, made of the run's",
    "ledger/chaos_mesh.py: base[:CUT]": "a name that is compared with names",
    "ledger/ledger.py: f'gameday-{run}'[:128]": "a field manager, as long as that may be",
    "node/__main__.py: v[:800]": "as long as the kubelet takes; the program on a node is told no secret",
    "run/session.py: name[:28]": "the run's name, made of the experiment's",
}


@pytest.fixture
def secret() -> str:
    masking.keep_secret("token", SECRET)
    return SECRET


def test_no_text_is_cut_anywhere_else() -> None:
    """With a bound that is written down, on texts; items of lists are counted, digests are no secrets."""
    files = {file.relative_to(PRODUCT).as_posix(): file for file in PRODUCT.rglob("*.py")}
    ours = {name: f for name, f in files.items() if name != "masking.py" and not name.startswith("sandbox/")}
    found = {f"{name}: {cut}" for name, file in ours.items() for cut in cuts(ast.parse(file.read_text()))}
    assert found == ALLOWED.keys(), "use `experiment.text.shorten` or `masking.clip`"


def cuts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
            what, bounds = ast.unparse(node.value), (node.slice.lower, node.slice.upper)
            told = what.startswith("mask_text(") or what.endswith(("digest", "hexdigest()"))
            from_end = isinstance(bounds[0], ast.UnaryOp)
            if not told and (cuts_at(bounds[1]) or (from_end and cuts_at(bounds[0]))):
                yield ast.unparse(node)


def cuts_at(bound: ast.expr | None) -> bool:
    """Whether a bound is fixed, and one for characters."""
    match bound:
        case ast.Constant(value=int(number)):
            return number > FEW
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.isupper() and not ITEMS.fullmatch(name)
        case ast.UnaryOp(operand=inner) | ast.BinOp(left=inner, right=ast.Constant()):
            return cuts_at(inner)
    return False


@pytest.mark.parametrize("code", ["t[:300]", "t[:LONGEST]", "t[-400:]", "t[: page.TEXT - 1]", "t[5:LIMIT]"])
def test_a_cut_is_found(code: str) -> None:
    assert len(list(cuts(ast.parse(code)))) == 1


@pytest.mark.parametrize("before", range(0, 330, 7))
def test_a_secret_across_the_place_of_the_cut(before: int, secret: str) -> None:
    text = "x" * before + " " + secret + " and more" * 300
    scope = _Scope(frozenset({"a"}), frozenset(), frozenset(), None)
    event = {"involvedObject": {"kind": "Pod", "namespace": "a", "name": "b"}, "metadata": {"uid": "1"}}
    (told,) = _Events(scope).of("ADDED", event | {"message": "y" * 250 + text}, True)
    shown = [
        shorten(text),
        shorten(text.encode(), 300),
        clip(text, 80),
        str(Diagnosis("apply", text)),
        sentence(ValueError(text)),
        told.message,
        _readable("y" * 700 + text),
    ]
    with pytest.raises(PlatformError) as raised:
        _field(HttpSpec(url="http://x/", measure="json", json_path="{.a}"), 200, text.encode())
    assert not [s for s in (*shown, str(raised.value)) if secret[:5] in s]


@pytest.mark.parametrize("size", [0, 1, 20, 46, 47, 48])
@pytest.mark.parametrize("blank", ["x", " ", "é"])
def test_a_secret_across_the_end_of_what_is_looked_at(size: int, blank: str, secret: str) -> None:
    """Blanks before it are joined, so that the end comes into sight."""
    for before in (LONGEST_READ - size, LONGEST_READ + masking._longest - size):
        text = "a" + blank * before + secret + "b" * 100_000
        assert secret[:5] not in shorten(text, 10**6)
        assert secret[:5] not in shorten(text.encode(), 10**6)
        assert secret[:5] not in clip(text, 10**6)


@pytest.mark.parametrize("length", [60, 2000])
def test_a_secret_with_several_blanks_in_a_row(length: int, secret: str) -> None:
    blanks = "multi  blank   secret-55 xyz"
    masking.keep_secret("blanks", blanks)
    assert shorten(f"it is {blanks}", length) == "it is ***"
    assert str(PlatformError(f"it is {blanks}")) == "it is ***"


def test_what_is_short_enough_stays_as_it_is() -> None:
    assert clip("a  b\nc", 6) == "a  b\nc"
    assert shorten("a  b\nc", 5) == "a b c"
    assert clip("a  b\nc", 5) == "a  b…"
    assert shorten(b"\xff" + b"a" * 9, 5) == "\ufffdaaa…"
