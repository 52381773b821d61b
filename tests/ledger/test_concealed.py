"""A record holds no secret, and gives back what it was made of where the secrets are given again."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gameday import masking
from gameday.extend import PlanError
from gameday.faults.chaostoolkit import from_environment
from gameday.ledger.activity import Activity
from gameday.ledger.concealed import conceal, reveal
from gameday.ledger.edits import Edit
from gameday.ledger.ledger import Entry
from gameday.ledger.operations import Patch
from gameday.platform.objects import Ref
from tests.support.kept import nothing_kept

pytestmark = pytest.mark.fast
SECRET = "correct-horse"
TEXTS = st.lists(st.sampled_from([*"ab*{}:\ue000\ue001sn", SECRET]), max_size=12).map("".join)
DATA = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
)


@pytest.fixture(autouse=True)
def one_secret() -> None:
    masking.keep_secret("token", SECRET)
    masking.keep_secret("pin_token", "12345678")


@given(DATA)
def test_there_and_back(data: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAMEDAY_SECRET_TOKEN", SECRET)
        hidden = conceal([data, 12345678, f"Bearer {SECRET}"])
        assert SECRET not in str(hidden)
        assert "12345678" not in str(hidden)
        patch.setenv("GAMEDAY_SECRET_PIN_TOKEN", "12345678")
        assert reveal(hidden) == [data, 12345678, f"Bearer {SECRET}"]


NAMES = st.from_regex(r"[a-z][a-z0-9_]{5,12}", fullmatch=True)


@given(st.data(), st.lists(NAMES, min_size=2, max_size=4, unique=True))
def test_there_and_back_whatever_the_secrets_are(given_: st.DataObject, names: list[str]) -> None:
    """A value may be (a part of) another's name or value, or of what stands in their place."""
    parts = [*names, *(n.upper() for n in names), "GAMEDAY_SECRET_", "\ue000s:", "\ue001", "\ue000", "x"]
    text = st.lists(st.sampled_from(parts), max_size=4).map("".join)
    long = text.filter(lambda s: len(s) >= masking.SHORTEST)
    secrets = dict(zip(names, given_.draw(st.lists(long, min_size=4, max_size=4, unique=True)), strict=False))
    data = given_.draw(
        st.dictionaries(text, st.lists(text | st.sampled_from([*secrets.values()]), max_size=4))
    )
    with nothing_kept(), pytest.MonkeyPatch.context() as patch:
        for name, value in secrets.items():
            masking.keep_secret(name, value)
            patch.setenv(f"GAMEDAY_SECRET_{name.upper()}", value)
        hidden = conceal(data)
        assert reveal(hidden) == data


@settings(deadline=None)
@given(st.text(alphabet="aB3 &<>\"'+/=%\\é\n", min_size=8, max_size=24), st.sampled_from(list("abc\ue000")))
def test_no_encoding_of_a_secret_is_in_a_record(secret: str, around: str) -> None:
    """What is masked for people is concealed in records, and comes back as it was."""
    with nothing_kept(), pytest.MonkeyPatch.context() as patch:
        masking.keep_secret("token", secret)
        patch.setenv("GAMEDAY_SECRET_TOKEN", secret)
        coded = {name: f"{around}{form}{around}" for name, form in masking.forms(secret).items()}
        coded["whole"] = base64.b64encode(f"{around}{secret}{around}".encode()).decode()
        hidden = conceal(coded)
        assert not [name for name in coded if coded[name] in hidden[name]]
        assert not masking.kept_in(json.dumps(hidden, ensure_ascii=False))
        assert reveal(hidden) == coded


def test_without_the_secret_the_entry_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    where = Ref("v1", "ConfigMap", "gameday-x", "gameday")
    patch = Patch(
        Ref("v1", "ConfigMap", "c", "d", "u"), (Edit(("data", "a"), f"x {SECRET}", "old"),), "gameday-run"
    )
    record = Entry(1, "1", patch).record()
    assert SECRET not in str(record)
    unread = Entry.from_record(record, where, "x")
    assert "set $GAMEDAY_SECRET_TOKEN, and recover again" in unread.operation.summary
    assert unread.record()["op"] == record["op"]  # as it was, for whoever has the secret
    monkeypatch.setenv("GAMEDAY_SECRET_TOKEN", SECRET)
    assert Entry.from_record(record, where, "x").operation == patch


def test_a_secret_from_the_environment_of_an_activity_is_in_no_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chaos Toolkit's own way to name secrets: `configuration: {api_token: {type: env, key: …}}`."""
    monkeypatch.setenv("ACME_TOKEN", "s3cr3t-of-acme")
    monkeypatch.setenv("ACME_REGION", "west-of-here")
    configuration = {
        "credential": {"type": "env", "key": "ACME_TOKEN"},
        "region": {"type": "env", "key": "ACME_REGION"},
    }
    activity = Activity("a", "what", undo_with=None, configuration=from_environment(configuration))
    record = str(Entry(1, "1", activity).record())
    assert "west-of-here" in record
    assert "s3cr3t-of-acme" not in record
    assert "s3cr3t-of-acme" not in masking.mask_text("it said s3cr3t-of-acme")


def test_a_secret_that_is_too_short_to_be_concealed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was in every record, and in no message: now nothing is done with it."""
    monkeypatch.setenv("ACME_TOKEN", "1234")
    with pytest.raises(PlanError, match=r"\$ACME_TOKEN, a secret by its name, is shorter than 6"):
        from_environment({"credential": {"type": "env", "key": "ACME_TOKEN"}})
    with pytest.raises(masking.TooShort):
        masking.keep_secret("token", "1234")


def test_values_of_secrets_are_shown_as_digests() -> None:
    edits = (Edit(("data", "x"), "bmV3", "b2xk"), Edit(("stringData", "y"), "1", None))
    told = Patch(Ref("v1", "Secret", "s", "d"), edits, "gameday-run").summary
    assert told.count("sha256:") == 3
    assert not [v for v in ("bmV3", "b2xk") if v in told]
    env = Edit(("spec", "env"), "hunter2", "old", item=(("name", "DB_PASSWORD"),), inside=("value",))
    assert "hunter2" not in str(env)
    assert "unset → 3" in str(Edit(("spec", "replicas"), 3))
