"""Safe expressions over trial parameters."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

ParameterValues = Mapping[str, Any]
FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": abs, "len": len, "max": max, "min": min, "sum": sum}
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}


@dataclass(frozen=True)
class Constraint:
    """One condition, and the keys it speaks of."""

    text: str
    keys: frozenset[str]
    expression: ast.expr

    def holds(self, values: ParameterValues) -> bool:
        """Whether these values meet it; where a key has none, it does not apply and holds.

        >>> read_constraint("model.widths[0] <= 32 and model.lr < 1").holds({"model.widths": [64]})
        True
        >>> read_constraint("model.widths[0] <= 32").holds({"model.widths": [64]})
        False

        Raises:
            ValueError: It can't be computed for these values, or gives neither true nor false.
        """
        if not self.keys <= values.keys():
            return True
        used = ", ".join(f"{key}={values[key]!r}" for key in sorted(self.keys))
        try:
            result = _evaluate(self.expression, values)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"sweep.constraints: {self.text!r} can't be computed for {used}: {error}"
            ) from error
        if not isinstance(result, bool):
            raise ValueError(
                f"sweep.constraints: {self.text!r} must be true or false, is {result!r} for {used}"
            )
        return result


@cache
def read_constraint(text: str) -> Constraint:
    """Reads a condition such as "model.lr * 10 > model.weight_decay".

    Raises:
        ValueError: It is no expression, or one of more than keys, numbers, texts, lists, indices,
            arithmetic, comparisons, and, or, not, abs, len, max, min and sum.
    """
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"sweep.constraints: {text!r} is no expression such as model.lr * 10 > model.weight_decay: "
            f"{error.args[0]}"
        ) from error
    keys: set[str] = set()
    _check(expression, keys, text)
    return Constraint(text, frozenset(keys), expression)


def _check(node: ast.expr, keys: set[str], text: str) -> None:
    """Collects the keys and refuses what `_evaluate` can't do."""
    match node:
        case ast.Name() | ast.Attribute() if (key := _dotted(node)) is not None:
            keys.add(key)
            return
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
            parts = node.args
        case ast.BinOp(op=operation) | ast.UnaryOp(op=operation) if type(operation) in OPERATORS:
            parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in OPERATORS for op in ops):
            parts = [left, *others]
        case ast.BoolOp() | ast.List() | ast.Tuple() | ast.Constant():
            parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
        case ast.Subscript(value=value, slice=index) if not isinstance(index, ast.Slice):
            parts = [value, index]
        case _:
            raise ValueError(
                f"sweep.constraints: {text!r} has {ast.unparse(node)!r}, but may have only keys, values, "
                f"indices, arithmetic, comparisons, and, or, not, {', '.join(FUNCTIONS)}"
            )
    for part in parts:
        _check(part, keys, text)


def _evaluate(node: ast.expr, values: ParameterValues) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_evaluate(item, values) for item in items]
        case ast.Subscript(value=container, slice=index):
            return _evaluate(container, values)[_evaluate(index, values)]
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return FUNCTIONS[name](*(_evaluate(argument, values) for argument in arguments))
        case ast.UnaryOp(op=operation, operand=operand):
            return OPERATORS[type(operation)](_evaluate(operand, values))
        case ast.BinOp(left=left, op=operation, right=right):
            return OPERATORS[type(operation)](_evaluate(left, values), _evaluate(right, values))
        case ast.BoolOp(op=operation, values=parts):
            return (all if isinstance(operation, ast.And) else any)(_evaluate(part, values) for part in parts)
        case ast.Compare(left=left, ops=operations, comparators=others):
            sides = [_evaluate(side, values) for side in (left, *others)]
            pairs = zip(operations, sides, sides[1:], strict=False)
            return all(OPERATORS[type(operation)](one, other) for operation, one, other in pairs)
    return values[_dotted(node) or ""]


def _dotted(node: ast.expr) -> str | None:
    """The key that a name with attributes spells."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            stem = _dotted(value)
            return None if stem is None else f"{stem}.{attribute}"
    return None
