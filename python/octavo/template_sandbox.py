"""LimitedEnvironment: jinja2's immutable sandbox with the limits of a Meter.

The code that jinja2 generates for a template is changed so that every block, call, filter,
comparison and new value passes the meter of the rendering. May be used from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from octavo.template_extensions import TemplateDict, TemplateNamespace
from octavo.template_guards import (
    NUMBER_ATTRIBUTES,
    TEXT_METHODS,
    EscapedTextFormatter,
    TextFormatter,
    guard_binary,
    guard_filter,
    guard_format,
    guard_text_method,
)
from octavo.template_limits import ITEM_SIZE, MAX_SOURCE, Meter, TemplateLimitError

_CHEAP_COMPARISONS = ("eq", "ne", "gt", "gteq", "lt", "lteq")


class _MeteredCode(CodeGenerator):
    """Generates code that passes the environment's meter."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self.environment.tick()  # type: ignore[attr-defined]  # large templates take long
        return super().visit(node, *args, **kwargs)

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        self.writeline("environment.tick()")
        super().blockvisit(nodes, frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._visit_literal(super().visit_List, node, frame, node.items)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        items = [] if node.ctx == "store" else node.items  # a target is no value
        self._visit_literal(super().visit_Tuple, node, frame, items)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        items = [part for pair in node.items for part in (pair.key, pair.value)]
        self._visit_literal(super().visit_Dict, node, frame, items)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if isinstance(node.arg, nodes.Slice):
            self._wrap("environment.made(", super().visit_Getitem, node, frame)
        else:
            super().visit_Getitem(node, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        operands = [node.expr, *(op.expr for op in node.ops)]
        scalars = sum(isinstance(operand, nodes.Const) for operand in operands)
        cheap = all(op.op in _CHEAP_COMPARISONS for op in node.ops)
        if cheap and scalars >= len(operands) - 1:
            super().visit_Compare(node, frame)
        else:
            self._wrap("(environment.tick() or ", super().visit_Compare, node, frame)

    def visit_Test(self, node: nodes.Test, frame: Frame) -> None:
        if node.args or node.kwargs:
            self._wrap("(environment.tick() or ", super().visit_Test, node, frame)
        else:
            super().visit_Test(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        autoescape = "context.eval_ctx.autoescape"
        if not frame.eval_ctx.volatile:
            autoescape = str(bool(frame.eval_ctx.autoescape))
        self.write(f"environment.joined({autoescape}, (")
        for item in node.nodes:
            self.visit(item, frame)
            self.write(", ")
        self.write("))")

    def _visit_literal(
        self, visit: Callable[..., None], node: Any, frame: Frame, items: Sequence[nodes.Node]
    ) -> None:
        if all(isinstance(item, nodes.Const) for item in items):  # as large as in the template
            visit(node, frame)
        else:
            self._wrap("environment.made(", visit, node, frame)

    def _wrap(self, before: str, visit: Callable[..., None], node: Any, frame: Frame) -> None:
        self.write(before)
        visit(node, frame)
        self.write(")")


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox in which templates are compiled and rendered."""

    code_generator_class = _MeteredCode
    intercepted_binops = frozenset(("+", "*", "%", "**"))

    def __init__(self, **options: Any) -> None:
        self._local = threading.local()
        super().__init__(**options)
        self.filters = {name: self._metered(name, f) for name, f in self.filters.items()}
        self.globals.pop("lipsum")  # random text, of any length

    # What this package calls.

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Makes a function a filter of templates."""
        self.filters[name] = self._metered(name, function)

    def limited(self, values: Any, function: Callable[[], Any]) -> Any:
        """What the function gives, which parses, compiles or renders. ``values`` are its input."""
        before = getattr(self._local, "meter", None)
        self._local.meter = Meter(values)
        try:
            return function()
        finally:
            self._local.meter = before

    def render(self, template: Any, values: Mapping[str, Any]) -> str:
        """The text that a compiled template makes."""

        def text() -> str:
            parts, size = [], 0
            for part in template.generate(values):
                size += len(part)
                self.meter.need(size)
                parts.append(part)
            return "".join(parts)

        return str(self.limited(values, text))

    def check_source(self, source: str) -> None:
        """Raises TemplateLimitError for a template that is too long to be parsed."""
        if len(source) > MAX_SOURCE:
            raise TemplateLimitError(
                f"it has {len(source)} characters, more than {MAX_SOURCE}, the limit"
            )

    # What the generated code and jinja2 call.

    @property
    def meter(self) -> Meter:
        """The meter of this thread's rendering."""
        return self._local.meter

    def tick(self) -> None:
        self._local.meter.tick()

    def made(self, value: Any) -> Any:
        return self._local.meter.made(value)

    def concat(self, parts: Iterable[str]) -> str:
        listed = parts if isinstance(parts, list) else list(parts)
        self.meter.need(sum(map(len, listed)))
        return str(self.made("".join(listed)))

    def joined(self, autoescape: bool, values: Sequence[Any]) -> Any:
        meter = self.meter
        meter.need(sum(meter.size_of(value) - ITEM_SIZE for value in values))
        return meter.made((markup_join if autoescape else str_join)(values))

    def getitem(self, obj: Any, argument: Any) -> Any:
        if type(argument) is tuple:  # whose hash is no constant cost
            self.tick()
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, str):
            return attr in TEXT_METHODS
        if isinstance(obj, (int, float, bytes)):
            return attr in NUMBER_ATTRIBUTES
        return not (isinstance(obj, dict) and attr == "fromkeys")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        text = getattr(value, "__self__", None)
        name = getattr(value, "__name__", "")
        if not isinstance(text, str) or name not in ("format", "format_map"):
            return None
        if isinstance(text, Markup):
            formatter: TextFormatter = EscapedTextFormatter(self, escape=text.escape)
        else:
            formatter = TextFormatter(self)

        def formatted(*args: Any, **kwargs: Any) -> str:
            if name == "format_map":
                (kwargs,), args = args, ()
            guard_format(self.meter, text, args, kwargs)
            return type(text)(formatter.vformat(text, args, kwargs))

        return formatted

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter: Meter = self._local.meter
        if operator == "+" and type(left) is str and type(right) is str:
            meter.need(len(left) + len(right))  # most of what templates do
            return meter.made(left + right)
        guard_binary(meter, operator, left, right)
        return meter.made(self.binop_table[operator](left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        meter = self.meter
        meter.tick()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            named = {k: v for k, v in kwargs.items() if not k.startswith("_")}  # not jinja2's own
            args = guard_text_method(meter, owner, obj.__name__, args, named)
        elif obj is TemplateNamespace or isinstance(obj, TemplateDict):
            args = tuple(a if isinstance(a, Mapping) else meter.iterate(a) for a in args)
        elif isinstance(owner, TemplateDict) and args:
            args = (meter.iterate(args[0]), *args[1:])
        return meter.made(super().call(context, obj, *args, **kwargs))

    def _metered(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The filter with its guard. jinja2 gives some filters its context first."""
        first = 1 if hasattr(function, "jinja_pass_arg") else 0

        def metered(*args: Any, **kwargs: Any) -> Any:
            meter = self.meter
            meter.tick()
            given = guard_filter(meter, name, args[first:], kwargs)
            return meter.made(function(*args[:first], *given, **kwargs))

        metered.__dict__.update(getattr(function, "__dict__", {}))
        return metered
