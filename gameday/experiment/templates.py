"""`{{ … }}` beyond a plain name: jinja2's sandbox, narrowed to expressions that can't run long or grow large.

The sandbox alone stops escapes, not `{{ 'a' * 10**9 }}`. So only a few kinds of expression are let
through, none of which loops, calls, or multiplies a text. Imported only when a file needs it: jinja2
takes longer to import than everything else here takes to run.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, nodes
from jinja2.environment import TemplateExpression
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment

from gameday.experiment.problems import did_you_mean
from gameday.experiment.text import describe

LONGEST_TEMPLATE = 10_000
MOST_TERMS = 200
_FILTERS = frozenset({"abs", "default", "float", "int", "lower", "round", "string", "trim", "upper"})
_TESTS = frozenset({"defined", "undefined", "number", "string"})
_EXPRESSIONS = (
    *(
        nodes.Name,
        nodes.Const,
        nodes.Filter,
        nodes.Test,
        nodes.Compare,
        nodes.Operand,
        nodes.CondExpr,
        nodes.Concat,
    ),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos),
    *(nodes.And, nodes.Or, nodes.Not, nodes.Output, nodes.TemplateData),
)


class _Sandbox(SandboxedEnvironment):
    intercepted_binops = frozenset({"*", "%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            raise ValueError(f"`{operator}` works on numbers, found {describe(left)} and {describe(right)}")
        return super().call_binop(context, operator, left, right)


def _environment() -> _Sandbox:
    # Not optimized: folding constants while compiling would run what call_binop is there to see.
    sandbox = _Sandbox(
        optimized=False, undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    sandbox.globals.clear()
    sandbox.filters = {name: sandbox.filters[name] for name in _FILTERS}
    sandbox.tests = {name: sandbox.tests[name] for name in _TESTS}
    return sandbox


_SANDBOX = _environment()


def render(text: str, variables: dict[str, Any]) -> list[Any]:
    """The parts of a text: what stands between expressions as it is, and the value of each expression.

    Raises ValueError with a sentence for the file's author.
    """
    try:
        return [
            each if isinstance(each, str) else _value(each, variables)
            for each in _parts(text, tuple(variables))
        ]
    except TemplateError as error:
        raise ValueError(f"the template is wrong: {error.message}") from None
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"the template can't be worked out: {error}") from None
    except (RecursionError, MemoryError, SyntaxError):
        raise ValueError("the template is too complicated") from None


@cache
def _parts(text: str, known: tuple[str, ...]) -> list[str | TemplateExpression]:
    if len(text) > LONGEST_TEMPLATE:
        raise ValueError(f"a text with `{{{{` has at most {LONGEST_TEMPLATE:,} characters")
    template = _SANDBOX.parse(text)
    _check(template, known)
    outputs = [each for output in template.body if isinstance(output, nodes.Output) for each in output.nodes]
    return [each.data if isinstance(each, nodes.TemplateData) else _compiled(each) for each in outputs]


def _check(template: nodes.Template, known: tuple[str, ...]) -> None:
    for count, node in enumerate(template.find_all(nodes.Node)):
        if count >= MOST_TERMS:
            raise ValueError("the template is too complicated")
        if isinstance(node, nodes.Name) and node.name not in known:
            hint = did_you_mean(node.name, known)
            raise ValueError(f"the variable `{node.name}` is not defined" + (f" ({hint})" if hint else ""))
        if not isinstance(node, _EXPRESSIONS):
            word = type(node).__name__.lower()
            raise ValueError(
                f"`{word}` is not for experiments; expected `{{{{ name }}}}`, simple sums and conditions"
            )
        if isinstance(node, nodes.Filter | nodes.Test):
            _check_named(node)


def _check_named(node: nodes.Filter | nodes.Test) -> None:
    known = _FILTERS if isinstance(node, nodes.Filter) else _TESTS
    if node.name not in known:
        raise ValueError(f"`{node.name}` is not for experiments; expected one of {', '.join(sorted(known))}")
    if (node.args or node.kwargs) and node.name != "default":
        raise ValueError(f"`{node.name}` takes no arguments here")


def _compiled(expression: nodes.Expr) -> TemplateExpression:
    result = nodes.Assign(nodes.Name("result", "store", lineno=1), expression, lineno=1)
    template = nodes.Template([result], lineno=1)
    template.set_environment(_SANDBOX)
    return TemplateExpression(_SANDBOX.from_string(template), undefined_to_none=False)


def _value(expression: TemplateExpression, variables: dict[str, Any]) -> Any:
    value = expression(**variables)
    if isinstance(value, Undefined) or not isinstance(value, str | int | float | bool):
        raise ValueError(f"the template gives {describe(value)}; expected a text, a number, or true or false")
    return value
