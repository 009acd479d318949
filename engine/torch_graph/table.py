"""What a table of operators is made of."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Mapping

from engine.errors import UserError

Operator = Callable[[list, Mapping[str, Any]], Any]  # tensors, attributes -> tensor or tuple


class Table(dict):
    """Name of an operator -> function of its inputs (list of tensors) and attributes (mapping).

    The functions that `operator` and `add` enter have the attribute ``attributes``, the names of
    those they know: a node with another one cannot be executed.
    """

    def operator(self, name: str) -> Callable:
        """Decorator: enter a function with tensors by position and attributes by keyword only."""

        def enter(function):
            parameters = inspect.signature(function).parameters.values()
            names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
            self.add(name, function, names)
            return function

        return enter

    def add(self, name: str, function: Callable, attributes) -> None:
        def call(inputs, attrs):
            return function(*inputs, **attrs)

        call.attributes = frozenset(attributes)
        self[name] = call


def only(operator: str, **values) -> None:
    """Refuse what an operator cannot do here: each keyword is (value, *the supported ones)."""
    for name, (value, *supported) in values.items():
        if value not in supported:
            raise UserError(
                f"the torch engine's operator {operator} cannot have {name} = {value!r}, "
                f"only {' or '.join(map(repr, supported))}"
            )
