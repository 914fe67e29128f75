"""StructuredOutputsParams and GuidedDecodingParams: one structure, and what is malformed."""

import json

import fake_core  # noqa: F401
import pytest
from octavo import NotSupportedError, OctavoError, ValidationError
from octavo.structured_outputs import GuidedDecodingParams, StructuredOutputsParams


class Model:
    """What pydantic's models look like from here."""

    @classmethod
    def model_json_schema(cls):
        return {"type": "object", "properties": {"a": {"type": "integer"}}}


def nested(depth):
    schema = {"type": "array"}
    for _ in range(depth - 1):
        schema = {"items": schema}
    return schema


REFUSED = [
    ({"json": ""}, "structured_outputs.json cannot be an empty string."),
    ({"json": "  "}, "structured_outputs.json cannot be an empty string."),
    ({"json": "{"}, "structured_outputs.json must be JSON: "),
    ({"json": "[1]"}, "structured_outputs.json must be a JSON object, got list."),
    ({"json": "5"}, "structured_outputs.json must be a JSON object, got int."),
    ({"json": '{"maximum": NaN}'}, "structured_outputs.json must be JSON: NaN is no JSON"),
    ({"json": {"maximum": float("nan")}}, "structured_outputs.json must be JSON: "),
    ({"json": {"a": {1, 2}}}, "structured_outputs.json must be JSON: "),
    ({"json": True}, "structured_outputs.json must be a schema; for any object expected json_obj"),
    ({"json": 5}, "structured_outputs.json must be a string, got int."),
    ({"json": b"{}"}, "structured_outputs.json must be a string, got bytes."),
    ({"json": nested(65)}, "structured_outputs.json must be nested at most 64 levels deep."),
    ({"json": json.dumps(nested(65))}, "structured_outputs.json must be nested at most 64 levels"),
    ({"json": '{"a":' * 10**5}, "structured_outputs.json must be JSON: "),
    ({"regex": "a\0b"}, "structured_outputs.regex cannot contain a null character."),
    ({"regex": 5}, "structured_outputs.regex must be a string, got int."),
    ({"regex": "\ud800"}, "structured_outputs.regex must be valid Unicode"),
    ({"choice": []}, "structured_outputs.choice cannot be an empty list."),
    ({"choice": "yes"}, "structured_outputs.choice must be a list, got str."),
    ({"choice": [1, 2]}, "structured_outputs.choice must be a string, got int."),
    ({"choice": ["a", ""]}, "structured_outputs.choice cannot contain an empty string."),
    ({"choice": ["\udfff"]}, "structured_outputs.choice must be valid Unicode"),
    ({"grammar": " \n"}, "structured_outputs.grammar cannot be an empty string."),
    ({"grammar": ["root"]}, "structured_outputs.grammar must be a string, got list."),
    ({"json_object": False}, "structured_outputs.json_object must be True or None, got False."),
    ({"json_object": 1}, "structured_outputs.json_object must be True or None, got 1."),
    ({"structural_tag": "x"}, "structured_outputs.structural_tag must be JSON: "),
    (
        {"json_object": True, "disable_any_whitespace": 1},
        "structured_outputs.disable_any_whitespace must be a bool, got int.",
    ),
    (
        {"json": {}, "disable_additional_properties": None},
        "structured_outputs.disable_additional_properties must be a bool, got NoneType.",
    ),
]


@pytest.mark.parametrize(("fields", "text"), REFUSED, ids=range(len(REFUSED)))
def test_refused_values(fields, text):
    with pytest.raises(ValidationError) as caught:
        StructuredOutputsParams(**fields)
    assert str(caught.value).startswith(text)
    assert len(str(caught.value)) < 500
    assert caught.value.parameter.startswith("structured_outputs.")
    assert isinstance(caught.value, OctavoError)


def test_exactly_one():
    text = "You must use one kind of structured outputs constraint"
    for fields in ({}, {"disable_any_whitespace": True}):
        with pytest.raises(ValidationError, match=text):
            StructuredOutputsParams(**fields)
    text = "You can only use one kind of structured outputs constraint but multiple are specified: "
    for fields in ({"json": {}, "regex": "a"}, {"choice": ["a"], "json_object": True}):
        with pytest.raises(ValidationError, match=text):
            StructuredOutputsParams(**fields)


def test_whitespace_patterns_are_refused_by_name():
    with pytest.raises(NotSupportedError, match=r"whitespace_pattern is not supported"):
        StructuredOutputsParams(json={}, whitespace_pattern=" ?")


def core(**fields):
    value = StructuredOutputsParams(**fields).to_core()
    return value.kind, value.text, list(value.choices)


def test_conversion_for_the_engine():
    schema = {"type": "object", "title": "Größe"}
    kind, text, choices = core(json=schema)
    assert (kind, json.loads(text), choices) == ("json_schema", schema, [])
    assert core(json='{"a": 1}')[:2] == ("json_schema", '{"a": 1}')
    assert core(json="true")[:2] == ("json_schema", "true")
    assert core(regex=r"\d+") == ("regex", r"\d+", [])
    assert core(choice=("b", "a", "b")) == ("choice", "", ["b", "a"])
    assert core(grammar='root ::= "a"') == ("grammar", 'root ::= "a"', [])
    assert core(json_object=True) == ("json_object", "", [])
    assert core(structural_tag={"a": 1}) == ("structural_tag", '{"a": 1}', [])
    assert core(json=nested(64))[0] == "json_schema"


def test_options_reach_the_engine():
    plain = StructuredOutputsParams(json={}).to_core()
    assert (plain.any_whitespace, plain.additional_properties) == (True, True)
    strict = StructuredOutputsParams(
        json={}, disable_any_whitespace=True, disable_additional_properties=True
    ).to_core()
    assert (strict.any_whitespace, strict.additional_properties) == (False, False)


def test_pydantic_models_are_schemas():
    for model in (Model, Model()):
        params = StructuredOutputsParams(json=model)
        assert params.json == Model.model_json_schema()
        assert params == StructuredOutputsParams(json=Model.model_json_schema())


def test_guided_decoding_params():
    params = GuidedDecodingParams(regex="a+")
    assert isinstance(params, StructuredOutputsParams)
    assert params.kind == "regex"
    with pytest.warns(UserWarning, match="backend='outlines' is ignored") as caught:
        GuidedDecodingParams(json={}, backend="outlines")
    assert caught[0].filename == __file__
    assert GuidedDecodingParams.from_optional() is None
    assert GuidedDecodingParams.from_optional(json_object=False) is None
    assert GuidedDecodingParams.from_optional(choice=["a"]) == GuidedDecodingParams(choice=["a"])
