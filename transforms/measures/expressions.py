"""Selection: an expression over the measures of a recording decides whether it is used."""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

from melmill.transforms.measures.registry import MEASURES, meters_of

_Operation = Callable[[Any, Any], Any]

#: What an expression may contain, except names and numbers.
_ALLOWED = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq),
    *(ast.NotEq, ast.Load),
)
#: How other operators are written.
_SYMBOLS: dict[type[ast.AST], str] = {
    **{ast.Pow: "**", ast.Mod: "%", ast.FloorDiv: "//", ast.MatMult: "@", ast.UAdd: "+"},
    **{ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>"},
    **{ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not", ast.Invert: "~"},
}
_MOST_CHARACTERS, _LARGEST_NUMBER = 1000, 1e15
_EXAMPLE = "clipping.share < 0.001 and not channels.dead and level.rms > -45"


@dataclass(frozen=True)
class Selection:
    """An expression that decides which recordings are used.

    A comparison with a measure that is not defined is false. ``not`` of such a measure is true.

    Attributes
    ----------
    expression
        Names of measures (``clipping.share``), numbers, ``true``, ``false``, comparisons,
        arithmetic, ``and``, ``or``, ``not`` and parentheses.

    Raises
    ------
    ValueError
        The expression is wrong; the message says what is allowed.

    Examples
    --------
    >>> selection = Selection("clipping.share < 0.001 and not channels.dead")
    >>> selection.measures
    ('channels.dead', 'clipping.share')
    >>> selection.refused_by({"clipping.share": 0.5, "channels.dead": False}.get)
    'clipping.share'
    >>> selection.refused_by({"clipping.share": 0.0, "channels.dead": None}.get)
    ''
    """

    expression: str

    def __post_init__(self) -> None:
        """Check the expression."""
        if len(self.expression) > _MOST_CHARACTERS:
            raise ValueError(f"has more than {_MOST_CHARACTERS} characters")
        nodes = list(ast.walk(self._tree()))
        groups = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            # The name of a group is checked with the measure's name.
            if id(node) not in groups:
                self._check(node)

    def _tree(self) -> ast.Expression:
        try:
            return ast.parse(self.expression.strip(), mode="eval")
        except (SyntaxError, ValueError) as error:
            place = f", at character {getattr(error, 'offset', None) or 1}"
            raise ValueError(
                f"is no expression ({getattr(error, 'msg', error)}{place}); such as: {_EXAMPLE}"
            ) from None

    @staticmethod
    def _check(node: ast.AST) -> None:
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name not in MEASURES:
                raise ValueError(f"{name} is no measure; {_meant(name)}")
            if MEASURES[name].type in ("events", "text"):
                raise ValueError(f"{name} has no single value; {_meant(name)}")
        elif isinstance(node, ast.Name):
            if node.id not in ("true", "false"):
                raise ValueError(f"{node.id} is no measure; {_meant(node.id)}")
        elif isinstance(node, ast.Constant):
            if not isinstance(node.value, int | float) or abs(node.value) > _LARGEST_NUMBER:
                raise ValueError(f"{node.value!r} is no number below {_LARGEST_NUMBER:g}")
        elif not isinstance(node, _ALLOWED):
            wrong = _SYMBOLS.get(type(node)) or ast.unparse(node)
            raise ValueError(
                f"{wrong} is not allowed; an expression has "
                f"names of measures, numbers, comparisons, + - * /, and, or, not: {_EXAMPLE}"
            )

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures in the expression."""
        return _names(self._tree())

    @property
    def meters(self) -> tuple[str, ...]:
        """Meters that read these measures."""
        return meters_of(self.measures)

    def refused_by(self, read: Callable[[str], Any]) -> str:
        """Return what refuses a recording: the names of measures; ``""`` if it is selected.

        If the expression has several parts that are joined by ``and``, the names are those of the
        first part that is false. Without a name, the result is the part itself.

        Parameters
        ----------
        read
            Function that returns the reading of a measure.
        """
        from simpleeval import SimpleEval  # imported here, because few processes need it

        for names, text, parsed in _parts(self.expression):
            values: dict[str, Any] = {"true": True, "false": False}
            for name in names:
                group, own = name.split(".")
                setattr(values.setdefault(group, SimpleNamespace()), own, read(name))
            # An evaluator of its own: threads of a worker select at the same time.
            evaluator = SimpleEval(operators=_operators(), functions={}, names=values)
            if not evaluator.eval(text, previously_parsed=parsed):
                return ", ".join(names) or text
        return ""


@cache
def selection_of(expression: str) -> Selection:
    """Return the selection of an expression; it is checked once."""
    return Selection(expression)


def _meant(name: str) -> str:
    names = [
        measure.name for measure in MEASURES.values() if measure.type not in ("events", "text")
    ]
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"{meant}melmill check --list prints all measures"


def _names(tree: ast.AST) -> tuple[str, ...]:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return tuple(sorted({ast.unparse(node) for node in nodes}))


@cache
def _parts(expression: str) -> list[tuple[tuple[str, ...], str, ast.AST]]:
    """Return the parts that ``and`` joins: the names in each, its text, and its tree."""
    body = ast.parse(expression.strip(), mode="eval").body
    nodes = [body]
    if isinstance(body, ast.BoolOp) and isinstance(body.op, ast.And):
        nodes = body.values
    return [(_names(node), ast.unparse(node), node) for node in nodes]


@cache
def _operators() -> dict[type[ast.AST], Any]:
    """Return the operators by their node; a number that is not defined makes a result undefined."""
    compared = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt}
    compared |= {ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq: operator.ne}
    computed = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
    computed |= {ast.Div: operator.truediv}
    return {
        **{node: _comparing(comparison) for node, comparison in compared.items()},
        **{node: _computing(arithmetic) for node, arithmetic in computed.items()},
        ast.USub: lambda value: None if value is None else -value,
        ast.Not: operator.not_,
    }


def _comparing(comparison: _Operation) -> _Operation:
    return lambda left, right: None not in (left, right) and comparison(left, right)


def _computing(arithmetic: _Operation) -> _Operation:
    def compute(left: Any, right: Any) -> Any:
        if None in (left, right) or (arithmetic is operator.truediv and right == 0):
            return None
        return arithmetic(left, right)

    return compute
