"""Structures for the tests of structured output, and what says whether a text is of a structure:
jsonschema, re, and a few lines of Python for the grammars. None of it is Octavo's code."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jsonschema
import regex

# What may be missing at the end of a JSON text that was cut within a value.
_ENDINGS = ["", '"', '0"', "0", '":0', ":0", '"":0', '"a":0', "e", "ue", "rue", "se", "lse", "alse"]
_ENDINGS += ["l", "ll", "ull", 'n"', '0000"', '000"', '00"', "null"]


@dataclass(frozen=True)
class Case:
    """A structure, what to ask the model for, and the two tests of a text."""

    structure: dict[str, Any]
    request: str
    is_whole: Callable[[str], bool]
    is_prefix: Callable[[str], bool]


def is_json_prefix(text: str) -> bool:
    """Whether JSON can begin with the text."""
    closers = "".join(_closers(text))
    for ending in _ENDINGS:
        try:
            json.loads(text + ending + closers)
        except ValueError:
            continue
        return True
    return text.strip() == ""


def _closers(text: str) -> list[str]:
    """The brackets that are open at the end of the text, to be closed."""
    stack: list[str] = []
    in_string = escaped = False
    for char in text:
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "[{":
            stack.append("]" if char == "[" else "}")
        elif char in "]}":
            stack.pop()
    return stack[::-1]


def is_valid_json(text: str, schema: Any) -> bool:
    """Whether the text is JSON of the schema."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
        jsonschema.validate(
            value,
            schema,
            cls=jsonschema.Draft202012Validator,
            format_checker=jsonschema.FormatChecker(),
        )
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(name)


def from_schema(request: str, schema: dict[str, Any], **options: Any) -> Case:
    return Case(
        {"json": schema, **options},
        f"{request} Answer in JSON.",
        lambda text: is_valid_json(text, schema),
        is_json_prefix,
    )


def from_regex(request: str, pattern: str) -> Case:
    """A text has to match with shorthands such as \\W of ASCII, as ECMAScript reads them, and of
    Unicode, as Python does by default."""
    oracle: Any = re if is_compiled_by(re, pattern) else regex
    return Case(
        {"regex": pattern},
        request,
        lambda text: all(oracle.fullmatch(pattern, text, flags) for flags in (0, oracle.ASCII)),
        lambda text: all(
            regex.fullmatch(pattern, text, flags, partial=True) for flags in (0, regex.ASCII)
        ),
    )


def is_compiled_by(library: Any, pattern: str) -> bool:
    """Whether `re` or `regex` takes the pattern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            library.compile(pattern)
        except (library.error, RecursionError, OverflowError):
            return False
    return True


def from_choice(request: str, *choices: str) -> Case:
    return Case(
        {"choice": list(choices)},
        request,
        lambda text: text in choices,
        lambda text: any(choice.startswith(text) for choice in choices),
    )


def from_grammar(request: str, grammar: str, pattern: str) -> Case:
    """A grammar whose language is that of a pattern, which may be recursive."""
    return Case(
        {"grammar": grammar},
        request,
        lambda text: regex.fullmatch(pattern, text) is not None,
        lambda text: regex.fullmatch(pattern, text, partial=True) is not None,
    )


def closed(**properties: Any) -> dict[str, Any]:
    """An object with these properties, all of them required, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT = {"type": "string", "maxLength": 24}
AGE = {"type": "integer", "minimum": 0, "maximum": 120}
PERSON = closed(name=TEXT, age=AGE)

SCHEMAS = [
    from_schema("Describe a person.", PERSON),
    from_schema("Describe a person.", PERSON, disable_any_whitespace=True),
    from_schema("Describe a family.", closed(mother=PERSON, father=PERSON)),
    from_schema(
        "Name three fruits.",
        closed(fruits={"type": "array", "items": TEXT, "minItems": 3, "maxItems": 3}),
    ),
    from_schema("Give me four numbers.", {"type": "array", "items": AGE, "maxItems": 4}),
    from_schema("What colour is the sky?", closed(colour={"enum": ["red", "green", "blue", None]})),
    from_schema("Make a message.", closed(version={"const": 2}, text=TEXT)),
    from_schema(
        "What is the weather?",
        closed(
            temperature={"type": "number", "minimum": -40, "maximum": 50},
            unit={"enum": ["C", "F"]},
            sunny={"type": "boolean"},
        ),
    ),
    from_schema(
        "Give me a number.", closed(n={"type": "integer", "exclusiveMinimum": 0, "maximum": 9})
    ),
    from_schema(
        "Give me a code.", closed(code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"})
    ),
    from_schema("When did it happen?", closed(day={"type": "string", "format": "date"})),
    from_schema("What is the address?", closed(address={"type": "string", "format": "ipv4"})),
    from_schema("Give me an id.", closed(id={"type": "string", "format": "uuid"})),
    from_schema(
        "Describe a pair of people.",
        {**closed(pair={"type": "array", "items": {"$ref": "#/$defs/p"}, "maxItems": 2}),
         "$defs": {"p": PERSON}},
    ),
    from_schema(
        "Describe a tree.",
        {"$ref": "#/$defs/node",
         "$defs": {"node": closed(
             value=AGE,
             children={"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 1},
         )}},
    ),
    from_schema("Give me a value.", closed(value={"anyOf": [AGE, TEXT, {"type": "null"}]})),
    from_schema(
        "Describe a book.",
        {"type": "object",
         "properties": {"title": TEXT, "year": {"type": "integer"}, "genre": TEXT},
         "required": ["title"], "additionalProperties": False},
    ),
    from_schema("Is it true?", {"type": "boolean"}),
    from_schema("Say something.", {"type": "string", "minLength": 5, "maxLength": 20}),
    from_schema("Give me a value.", closed(value={"type": ["integer", "boolean", "null"]})),
    from_schema(
        "Describe a point and its name.",
        closed(point={"type": "array", "prefixItems": [AGE, AGE], "minItems": 2, "items": False},
               name=TEXT),
    ),
    from_schema(
        "Describe a settings file.",
        closed(debug={"type": "boolean"},
               server=closed(host=TEXT, port={"type": "integer", "minimum": 1, "maximum": 65535})),
        disable_additional_properties=True,
    ),
]  # fmt: skip

REGEXES = [
    from_regex("What is your phone number?", r"\d{3}-\d{4}"),
    from_regex("Yes or no?", r"(yes|no)"),
    from_regex("What is the date?", r"(19|20)\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"),
    from_regex("What is your name?", r"[A-Z][a-z]{1,10}( [A-Z][a-z]{1,10})?"),
    from_regex("What is the time?", r"([01][0-9]|2[0-3]):[0-5][0-9]"),
    from_regex("What colour is it?", r"#[0-9a-fA-F]{6}"),
    from_regex("What does it cost?", r"\$\d{1,3}(\.\d\d)?"),
    from_regex("Write a word.", r"[^\d\s]{3,12}"),
    from_regex("Write a short sentence.", r"[A-Z][a-z ]{5,40}\."),
    from_regex("Count.", r"1(, \d{1,2}){2,5}"),
    from_regex("What is your address?", r"[a-z]{2,8}(\.[a-z]{2,8})?@[a-z]{2,8}\.(com|org|net)"),
    from_regex("Say it in Greek.", r"[α-ω]{2,8}"),
]

CHOICES = [
    from_choice("Is it good?", "positive", "negative", "neutral"),
    from_choice("Which animal?", "cat", "catfish", "dog", "dogfish"),
    from_choice("Which city?", "New York", "New Delhi", "Newcastle upon Tyne", "東京", "Köln"),
    from_choice("What now?", '"quoted"', "back\\slash", "two\nlines", "{}"),
]

ANY_OBJECT = Case(
    {"json_object": True},
    "Describe a car in short. Answer in JSON.",
    lambda text: is_valid_json(text, {"type": "object"}),
    is_json_prefix,
)

GRAMMARS = [
    from_grammar(
        "What is 2 + 3?",
        """root ::= term (" " [-+*] " " term)*
term ::= [0-9] [0-9]? | "(" root ")"
""",
        r"(?<root>(?<term>\d\d?|\((?&root)\))( [-+*] (?&term))*)",
    ),
    from_grammar(
        "Write brackets.",
        'root ::= "[" root "]" | "(" root ")" | "x"\n',
        r"(?<root>\[(?&root)\]|\((?&root)\)|x)",
    ),
    from_grammar(
        "Select a row.",
        """root ::= "SELECT " column (", " column)* " FROM " table
column ::= "id" | "name" | "price"
table ::= "items" | "users"
""",
        r"SELECT (id|name|price)(, (id|name|price))* FROM (items|users)",
    ),
]

# Every keyword and trap in small: each is refused when it is submitted, or enforced.
PECULIAR_SCHEMAS: list[dict[str, Any]] = [
    {},
    {"type": "object"},
    {"type": "array"},
    {"type": "string"},
    {"type": "number"},
    {"type": "null"},
    {"type": "objekt"},
    {"typ": "string"},
    {"type": "array", "uniqueItems": True, "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 3},
    {"type": "array", "contains": {"const": 7}, "items": AGE, "maxItems": 2},
    {"type": "array", "items": AGE, "minItems": 3, "maxItems": 1},
    {"type": "array", "prefixItems": [AGE], "maxItems": 2},
    {"type": "array", "unevaluatedItems": False, "prefixItems": [AGE]},
    {"not": {"type": "string"}},
    {"type": "integer", "not": {"const": 1}},
    {"oneOf": [AGE, {"type": "integer"}]},
    {"oneOf": [{"type": "null"}, {"type": "boolean"}]},
    {"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 5}]},
    {"allOf": [{"type": "integer"}, {"type": "string"}]},
    {"if": {"type": "integer"}, "then": {"minimum": 5}, "else": {"type": "null"}},
    {"type": "integer", "multipleOf": 3},
    {"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 3},
    {"type": "integer", "minimum": 5, "maximum": 3},
    {"type": "integer", "minimum": -(10**18), "maximum": 10**18},
    {"type": "integer", "minimum": -(10**30), "maximum": 10**30},
    {"type": "integer", "minimum": 1.5, "maximum": 2.5},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "minimum": 0.25, "maximum": 0.75},
    {"type": "integer", "exclusiveMinimum": True},
    {"type": "string", "minLength": 4, "maxLength": 2},
    {"type": "string", "minLength": 2, "pattern": "^a*$"},
    {"type": "string", "pattern": "a"},
    {"type": "string", "pattern": "^a|b$"},
    {"type": "string", "pattern": "(?=a)b"},
    {"type": "string", "pattern": "^\\d{2}$"},
    {"type": "string", "pattern": "^.{3}$"},
    {"type": "string", "pattern": "^[^a]{2}$"},
    {"type": "string", "pattern": "^\\S\\w$"},
    {"type": "string", "pattern": "("},
    {"type": "string", "format": "email", "maxLength": 10},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "ipv6"},
    {"type": "string", "format": "nonsense"},
    {"type": "string", "contentEncoding": "base64"},
    {"enum": []},
    {"enum": [1, "a", None, True, 1.5, [1], {"a": 1}]},
    {"enum": ["a\"b\\c\n", "é", "\u2028", ""]},
    {"const": {"a": [1, {"b": None}]}},
    {"const": 1, "type": "string"},
    {"type": "object", "minProperties": 2, "maxProperties": 2, "additionalProperties": AGE},
    {"type": "object", "propertyNames": {"pattern": "^[a-z]$"}, "additionalProperties": AGE},
    {"type": "object", "patternProperties": {"^x": AGE}, "additionalProperties": False},
    {"type": "object", "properties": {"a": AGE}, "required": ["b"]},
    {"type": "object", "properties": {"a": AGE}, "required": ["b"], "additionalProperties": False},
    {"type": "object", "dependentRequired": {"a": ["b"]}, "properties": {"a": AGE, "b": AGE}},
    {"type": "object", "properties": {"a": False}},
    {"type": "object", "properties": {"a\"b": AGE, "": AGE}, "required": ["a\"b", ""]},
    {"properties": {"a": AGE}},
    {"required": ["a"]},
    {"minimum": 3},
    {"$ref": "#/$defs/missing"},
    {"$ref": "https://example.com/schema.json"},
    {"$ref": "#"},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    {"$ref": "#/$defs/a", "maximum": 4, "$defs": {"a": {"type": "integer", "minimum": 2}}},
    {"$dynamicRef": "#a", "$defs": {"a": {"$dynamicAnchor": "a"}}},
    {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {}, "type": "null"},
    {"type": ["string", "null"], "maxLength": 2},
    {"type": []},
    {"type": "integer", "description": "a number", "title": "N", "default": 1, "examples": [2]},
    {"type": "integer", "nullable": True},
    {"anyOf": []},
    {"anyOf": [{"type": "integer"}], "maximum": 3},
]  # fmt: skip

PECULIAR_REGEXES = [
    "", "a", "^a$", "^a", "a$", "a|b|", "(a)(b)\\1", "(?=a)a", "(?!b)a", "(?<=a)b", "(?<!a)b",
    "\\bab\\b", "(?:ab)+", "(?P<n>a)b", "(?<n>a)b", "(?i)ab", "a{2}", "a{2,}", "a{,2}", "a{3,2}",
    "a{1000000}", "[a-c]{2}", "[z-a]", "[]a]{2}", "[^]a]", "[\\d_-]{2}", "[a\\]b]{2}", "\\w{2}",
    "\\W", "\\s", "\\S{2}", "\\D", "\\W{3}", "\\D{3}", "[^\\w]{3}", "[^\\W]{2}", "[\\W\\d]{3}",
    "[^\\S]", "\\.", "\\/", "\\n", "\\t", "\\x41", "\\u0041", "\\U0001F600",
    "\\p{L}", "\\Aa\\Z", "a*?b", "a+?", "a??", "a++", "(?>a)b", "(?#x)a", ".", ".{2}", "é", "[é-ü]",
    "😀{2}", "a**", "*a", "(", ")", "[", "a\\", "\\", "(?", "{", "}", "a{", "a{x}", "\\8", "\\0",
    "(a|b)*c", "(" * 300 + ")" * 300, "\\cA", "[[:alpha:]]", "[a&&b]", "[\\b]", "(?s).", "(?m)^a$",
    "$a", "a^b", "(^a|b)c", "a|^b$", "\\d", "[^\\d\\s]{2}", "[^\\D]", "[\\w]", "\\_", "\\-", "\\e",
]  # fmt: skip
