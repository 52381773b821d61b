"""Secret variables: where a value comes from is in the file, and the value is nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gameday import masking
from gameday.experiment.loader import load
from gameday.experiment.problems import InvalidExperiment
from tests.experiment.support import Write, only, problems

pytestmark = pytest.mark.fast
VALUE = "correct-horse-battery"


def declared(write: Write, form: str) -> Path:
    """An experiment whose title holds the variable `token`."""
    variables = f"  variables:\n    token: {form}\n    latency: 500ms\n    count: 2"
    title = ("title: Two nodes may break", "title: '{{ token }} breaks'")
    return write(("  variables: {latency: 500ms, count: 2}", variables), title)


def test_a_secret_is_rendered_and_shown_as_its_place(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_TOKEN", VALUE)
    loaded = load(declared(write, "{secretFrom: {env: ACME_TOKEN}}"))
    assert loaded.experiment.spec.title.startswith(VALUE)
    assert "token" not in loaded.variables
    assert loaded.document["spec"]["variables"]["token"] == {"secretFrom": {"env": "ACME_TOKEN"}}
    assert VALUE not in str(masking.mask(loaded.document))


def test_a_file_beside_the_experiment(write: Write) -> None:
    path = declared(write, "{secretFrom: {file: token.txt}}")
    assert "there is no file" in only(path)
    (path.parent / "token.txt").write_text(VALUE + "\n")
    assert load(path).experiment.spec.title.startswith(f"{VALUE} ")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("{secretFrom: {env: NOT_THERE}}", "the environment variable NOT_THERE is not set"),
        ("{secretFrom: {env: SHORT}}", "is shorter than 6 characters"),
        ("{secretFrom: {env: 1}}", "expected the name of an environment variable"),
        ("{secretFrom: {vault: x}}", "expected secretFrom: {env: NAME}, or secretFrom: {file: PATH}"),
        ("{secretFrom: {env: A, file: b}}", "expected secretFrom"),
        ("{secretFrom: A}", "expected secretFrom"),
        ("{secretfrom: {env: A}}", "did you mean `secretFrom`?"),
        ("{}", "expected secretFrom"),
    ],
)
def test_what_is_wrong_is_told_at_its_line(
    form: str, said: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORT", "abc")
    path = declared(write, form)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "token: {" in text)
    problem = only(path)
    assert said in problem
    assert f".yaml:{line}:" in problem


def test_a_file_is_checked_where_its_secrets_are_not(write: Write) -> None:
    assert load(declared(write, "{secretFrom: {env: NOT_THERE}}"), secrets=False)


def test_a_secret_is_not_set_on_the_command_line(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_TOKEN", VALUE)
    path = declared(write, "{secretFrom: {env: ACME_TOKEN}}")
    (problem,) = problems(path, overrides={"token": "x"})
    assert "its value comes from where the file says (env ACME_TOKEN)" in problem


def test_a_secret_names_no_run(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_TOKEN", VALUE)
    path = declared(write, "{secretFrom: {env: ACME_TOKEN}}")
    text = path.read_text()
    name = text.split("name: ")[1].splitlines()[0]
    path.write_text(text.replace(f"name: {name}", "name: '{{ token }}'", 1))
    assert "a secret can't be part of what names a run" in "".join(problems(path))


def test_one_that_is_too_short_to_be_masked_is_refused(write: Write) -> None:
    with pytest.raises(InvalidExperiment, match="--set: token: is shorter than 6 characters"):
        load(declared(write, "none"), {"token": "abc"})


def test_a_plain_variable_that_looks_secret_is_masked_and_warned_about(write: Write) -> None:
    loaded = load(declared(write, "none"), {"token": VALUE})
    assert any("a secret on the command line (--set token)" in w for w in loaded.warnings)
    assert VALUE not in str(masking.mask(loaded.document))
