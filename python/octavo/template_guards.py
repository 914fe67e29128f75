"""What filters, methods of text and operators of chat templates may be asked for.

Each guard looks at an operation before it runs, and raises TemplateLimitError where its result
would be too large, or where it would take long in one piece. What is cheap and makes nothing larger
has no guard: its result is looked at when it is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2.runtime import Undefined
from jinja2.sandbox import SandboxedEscapeFormatter, SandboxedFormatter

from octavo.template_limits import ITEM_SIZE, MAX_BITS, Meter, TemplateLimitError

MAX_WIDTH = 10_000  # characters that a field is padded to
MAX_SLOW = 1 << 18  # characters for what is slow, and items that text may be taken apart into
_MAX_PLACES = 308  # digits to round to
_MAX_SET = 256  # characters to strip
_MAX_SEARCH = 1 << 27  # characters of the text times those of what is searched from the right
_MAX_INDENT = 64

TEXT_METHODS = frozenset((
    "capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "format",
    "format_map", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit",
    "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper",
    "join", "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace",
    "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "upper", "zfill",
))  # fmt: skip
NUMBER_ATTRIBUTES = frozenset((
    "bit_length", "denominator", "imag", "is_integer", "numerator", "real",
))  # fmt: skip

_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_OTHER_SPACES = " \t\x1f\xa0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_SLOW_FILTERS = frozenset((
    "pprint", "striptags", "title", "urlencode", "urlize", "wordcount", "wordwrap", "xmlattr",
))  # fmt: skip
_ITERATING_FILTERS = frozenset((
    "batch", "groupby", "join", "list", "map", "max", "min", "reject", "rejectattr", "select",
    "selectattr", "slice", "sort", "sum", "unique",
))  # fmt: skip
# A field of ``%`` from its sign, or from where its name ends, to its width and precision.
_FIELD = re.compile(r"[%)][-#0 +]*(\*|\d+)?(?:\.(\*|\d+)?)?")
_NUMBER = re.compile(r"\d+")

Given = tuple[Any, ...]
Named = Mapping[str, Any]


class TextFormatter(SandboxedFormatter):
    """``str.format`` whose fields have a greatest width."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        for number in _NUMBER.findall(str(format_spec)):
            check_width(_int(number))
        return super().format_field(value, format_spec)


class EscapedTextFormatter(TextFormatter, SandboxedEscapeFormatter):
    """The same for text that is safe as HTML."""


def check_width(width: Any, most: int = MAX_WIDTH) -> None:
    """Raises TemplateLimitError for a number that is too large to pad, indent or repeat with."""
    if isinstance(width, int) and abs(width) > most:
        raise TemplateLimitError(f"it asks for a width of {width}; expected at most {most}")


def _int(digits: str) -> int:
    return int(digits) if len(digits) < 10 else MAX_WIDTH + 1


def check_slow(meter: Meter, value: Any, most: int = MAX_SLOW) -> None:
    """Raises TemplateLimitError for a value that is too large for something slow."""
    size = meter.size_of(value)
    if size > most:
        raise TemplateLimitError(
            f"it does something slow with {size} characters; expected at most {most}"
        )


# Operators.


def guard_binary(meter: Meter, operator: str, left: Any, right: Any) -> None:
    """For +, *, % and **."""
    if operator == "+":
        if not isinstance(left, (int, float)):
            meter.need(meter.size_of(left) + meter.size_of(right))
    elif operator == "%":
        if isinstance(left, str):
            guard_percent(meter, left, right)
    elif isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        if operator == "*":
            meter.need_bits(bits + right.bit_length() - 1)
        elif bits > 1 and right > 0:
            meter.need_bits((bits - 1) * right if right <= MAX_BITS else right)
    elif operator == "*":
        sequence, times = (right, left) if isinstance(left, int) else (left, right)
        if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
            size = len(sequence) if isinstance(sequence, str) else meter.size_of(sequence)
            meter.need(size * max(times, 0))


def guard_percent(meter: Meter, text: str, values: Any) -> None:
    """For ``text % values``."""
    check_slow(meter, text)
    starred = False
    for match in _FIELD.finditer(text):
        for number in match.groups():
            if number == "*":
                starred = True
            elif number:
                check_width(_int(number))
    if starred:
        for value in values if isinstance(values, tuple) else (values,):
            check_width(value)
    meter.need(len(text) + text.count("%") * meter.size_of(values))


def guard_format(meter: Meter, text: str, args: Given, kwargs: Any) -> None:
    """For ``text.format``."""
    check_slow(meter, text)
    given = meter.size_of(args) + meter.size_of(kwargs)
    meter.need(len(text) + text.count("{") * given)


# Methods of text.


def guard_text_method(meter: Meter, text: str, name: str, args: Given, kwargs: Named) -> Given:
    """The arguments to call a method of text with. Raises TemplateLimitError."""
    guard = _METHOD_GUARDS.get(name)
    return args if guard is None else guard(meter, text, *args, **kwargs) or args


def _guard_pad(meter: Meter, text: str, *args: Any, **kwargs: Any) -> None:
    for width in (*args, *kwargs.values()):
        check_width(width)


def _guard_tabs(meter: Meter, text: str, tabsize: Any = 8) -> None:
    check_width(tabsize)
    meter.need(len(text) + text.count("\t") * int(tabsize))


def _guard_replace(meter: Meter, text: str, old: Any, new: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(old, str) and isinstance(new, str) and len(new) > len(old):
        meter.need(len(text) + text.count(old) * (len(new) - len(old)))


def _guard_join(meter: Meter, text: str, values: Any) -> Given:
    items = list(meter.iterate(values))
    meter.need(meter.size_of(items) + len(items) * len(text))
    return (items,)


def _guard_split(meter: Meter, text: str, sep: Any = None, maxsplit: Any = -1) -> None:
    if not 0 <= maxsplit <= MAX_SLOW:
        _guard_pieces(text, _LINE_ENDS + _OTHER_SPACES if sep is None else (sep,))


def _guard_pieces(text: str, separators: Iterable[str]) -> None:
    if len(text) > MAX_SLOW and sum(map(text.count, separators)) > MAX_SLOW:
        raise TemplateLimitError(f"it splits text into more than {MAX_SLOW} pieces, the limit")


def _guard_lines(meter: Meter, text: str, keepends: Any = False) -> None:
    _guard_pieces(text, _LINE_ENDS)


def _guard_search(meter: Meter, text: str, sought: Any = None, *args: Any, **kwargs: Any) -> None:
    if isinstance(sought, str) and len(text) * len(sought) > _MAX_SEARCH:
        raise TemplateLimitError("it searches long text for long text from the right")


def _guard_rsplit(meter: Meter, text: str, sep: Any = None, maxsplit: Any = -1) -> None:
    _guard_search(meter, text, sep)
    _guard_split(meter, text, sep, maxsplit)


def _guard_strip(meter: Meter, text: str, chars: Any = None) -> None:
    if isinstance(chars, str):
        check_width(len(chars), _MAX_SET)


_METHOD_GUARDS: dict[str, Callable[..., Given | None]] = {
    "center": _guard_pad,
    "ljust": _guard_pad,
    "rjust": _guard_pad,
    "zfill": _guard_pad,
    "expandtabs": _guard_tabs,
    "replace": _guard_replace,
    "join": _guard_join,
    "split": _guard_split,
    "rsplit": _guard_rsplit,
    "splitlines": _guard_lines,
    "rfind": _guard_search,
    "rindex": _guard_search,
    "rpartition": _guard_search,
    "strip": _guard_strip,
    "lstrip": _guard_strip,
    "rstrip": _guard_strip,
}


# Filters.


def guard_filter(meter: Meter, name: str, args: Given, kwargs: Named) -> Given:
    """The arguments to call a filter with, the first of them its input.

    Raises TemplateLimitError.
    """
    if not args:
        return args
    value, *others = args
    if name in _SLOW_FILTERS:
        check_slow(meter, value)
        for other in (*others, *kwargs.values()):
            check_width(other)
            check_slow(meter, other, MAX_WIDTH)
    guard = _FILTER_GUARDS.get(name)
    if guard is not None:
        guard(meter, value, *others, **kwargs)
    if name == "join":
        return (_items_to_join(meter, value, *others, **kwargs), *others)
    if name in _ITERATING_FILTERS and not isinstance(value, Undefined):
        if isinstance(value, str):
            check_slow(meter, value)
        return (meter.iterate(value), *others)
    return args


def _items_to_join(meter: Meter, values: Any, d: Any = "", attribute: Any = None) -> list[Any]:
    items = list(meter.iterate(values))
    meter.need(meter.size_of(items) + len(items) * meter.size_of(d))
    return items


def _guard_indent(meter: Meter, text: Any, width: Any = 4, *args: Any, **kwargs: Any) -> None:
    check_width(len(width) if isinstance(width, str) else width, _MAX_INDENT)
    by = len(width) if isinstance(width, str) else int(width)
    if isinstance(text, str):
        _guard_lines(meter, text)
        meter.need(len(text) + (len(text) if by > 1 else 0) + text.count("\n") * by)


def _guard_json(
    meter: Meter,
    value: Any,
    ensure_ascii: Any = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: Any = False,
) -> None:
    by = len(indent) if isinstance(indent, str) else indent or 0
    check_width(by, _MAX_INDENT)
    check_slow(meter, separators, 4 * _MAX_INDENT)
    size = meter.size_of(value)
    per_item = by * meter.height_of(value) + sum(map(len, separators or ()))
    meter.need(size + size // ITEM_SIZE * per_item)


def _guard_round(meter: Meter, value: Any, precision: Any = 0, method: Any = "common") -> None:
    check_width(precision, _MAX_PLACES)


def _guard_count(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    for count in (*args, *kwargs.values()):
        check_width(count, MAX_SLOW)


def _guard_number(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(value, str):
        check_slow(meter, value, MAX_WIDTH)


def _guard_format_filter(meter: Meter, text: Any, *args: Any, **kwargs: Any) -> None:
    guard_percent(meter, str(text), kwargs or args)


def _guard_trim(meter: Meter, text: Any, chars: Any = None) -> None:
    _guard_strip(meter, "", chars)


def _guard_replace_filter(meter: Meter, text: Any, old: Any, new: Any, count: Any = None) -> None:
    _guard_replace(meter, str(text), str(old), str(new))


_FILTER_GUARDS: dict[str, Callable[..., None]] = {
    "batch": _guard_count,
    "slice": _guard_count,
    "center": lambda meter, value, width=80: check_width(width),
    "float": _guard_number,
    "int": _guard_number,
    "format": _guard_format_filter,
    "indent": _guard_indent,
    "replace": _guard_replace_filter,
    "round": _guard_round,
    "tojson": _guard_json,
    "trim": _guard_trim,
}
