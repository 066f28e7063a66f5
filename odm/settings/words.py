"""What a mistake in the settings is called: pydantic speaks of Python, a user's line of the file."""

from typing import Any

from pydantic import ValidationError

from odm.errors import nearest
from odm.settings.fields import NAME_PATTERN
from odm.settings.suite import Settings

_WORDS = {
    "dict_type": "should be a mapping of keys to values",
    "model_type": "should be a mapping of keys to values",
    "model_attributes_type": "should be a mapping of keys to values",
    "too_short": "should hold at least one",
}
"""What to say instead of pydantic where it speaks of Python and not of the file."""


def first_line(error: ValidationError, content: dict[Any, Any]) -> str:
    """The first of pydantic's complaints in our words, and how many more there are."""
    # A misspelt key is also a missing one: the spelling is what helps.
    complaints = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    first = complaints[0]
    kind, given = first["type"], first.get("input")
    keys = _keys(first, content)
    key, told = ".".join(keys), 1
    if kind == "extra_forbidden":
        text = f"{key}: unknown key{nearest(keys[-1], _fields_at(first['loc'][:-1]))}"
    elif kind == "missing":
        # All of them: whoever begins a file would be told once for each.
        missing = [".".join(_keys(each, content)) for each in complaints if each["type"] == "missing"]
        told = len(missing)
        text = f"{', '.join(missing)}: missing; add {'it' if told == 1 else 'them'}"
    elif kind == "union_tag_invalid":
        tags = first["ctx"]["expected_tags"].replace("'", "").split(", ")
        what = first["ctx"]["discriminator"].strip("'")
        text = f"{key}.{what}: no {what} '{first['ctx']['tag']}'{nearest(first['ctx']['tag'], tags)}"
    elif kind == "union_tag_not_found":
        what = first["ctx"]["discriminator"].strip("'")
        text = f"{key}.{what}: missing; add it"
    elif kind == "value_error":
        text = f"{key}: {first['ctx']['error']}" if key else str(first["ctx"]["error"])
    elif given is None:
        text = f"{key}: has no value; give it one"
    elif kind in _WORDS:
        text = f"{key}: {_WORDS[kind]}, not {given!r}"
    elif kind == "string_pattern_mismatch" and NAME_PATTERN in first["ctx"]["pattern"]:
        text = f"{key}: a name is made of lower-case letters, digits and _ ({NAME_PATTERN}), not {given!r}"
    elif kind == "string_pattern_mismatch":
        text = f"{key}: should be auto, cpu, cuda or cuda:<number>, not {given!r}"
    elif kind == "string_type" and first["loc"][-1] == "[key]":
        text = f"{key}: reads as a number or a truth value, not as a name; begin it with another letter"
    else:
        text = f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, not {given!r}"
    if kind == "less_than_equal" and isinstance(given, int) and first["ctx"]["le"] > 1000:
        text += "; nothing that can be computed is so large"
    more = f" (and {len(complaints) - told} more)" if len(complaints) > told else ""
    return text + more


def _keys(complaint: Any, content: dict[Any, Any]) -> list[str]:
    """The keys of the file that lead to what is complained of.

    Strings in `loc` that are no key of the file are pydantic's own: the tag of a union, "[key]" of a mapping.
    """
    keys: list[str] = []
    here: Any = content
    for part in complaint["loc"]:
        is_missing = part is complaint["loc"][-1] and complaint["type"] == "missing"
        if isinstance(here, dict) and (part in here or is_missing):
            keys.append(str(part))
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int):
            keys.append(str(part))
            here = here[part] if part < len(here) else None
    return keys


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that settings may have at a location, for naming the nearest one."""
    schema = Settings.model_json_schema()
    here = schema
    for part in location:
        here = _resolved(here, schema)
        if "discriminator" in here:  # the part is the tag of a union
            here = {"$ref": here["discriminator"]["mapping"][part]}
        elif part in here.get("properties", {}):
            here = here["properties"][part]
        else:
            values = here.get("patternProperties") or {"": here.get("additionalProperties", {})}
            here = next(iter(values.values()))
    return list(_resolved(here, schema).get("properties", {}))


def _resolved(here: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return schema["$defs"][here["$ref"].rsplit("/", 1)[1]] if "$ref" in here else here
