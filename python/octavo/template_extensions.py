"""What chat templates may use besides plain jinja2. Imported only when a template is rendered."""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.utils import Namespace


class GenerationTag(Extension):
    """``{% generation %}...{% endgeneration %}`` marks the assistant's text, which is kept."""

    tags = frozenset(("generation",))  # type: ignore[assignment]  # jinja2 declares a set

    def parse(self, parser: Parser) -> nodes.Node:
        """A call block, as in transformers: names set inside stay inside."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_keep"), [], [], body).set_lineno(line)

    def _keep(self, caller: Any) -> Any:
        return caller()


class TemplateDict:
    """``dict`` without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """As of ``dict``."""
        return dict.fromkeys(*args)


class TemplateNamespace(Namespace):
    """``namespace`` that refuses underscored names, which could reach the interpreter."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        # jinja2 prints the values: a text of any length, since they may change later.
        return f"<{type(self).__name__}>"


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"chat templates cannot store the underscored attribute {name!r}")
