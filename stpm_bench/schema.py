"""JSON Schema in plain words: which values are allowed, what is wrong with one, the defaults.

Both the error messages and docs/configuration.md use `expected`. If the words that follow from a
schema do not suffice, it can have its own in the key `x-expected`.
"""

import difflib
import json
import math
from copy import deepcopy

import jsonschema

from stpm_bench.errors import InputError

# JSON Schema accepts 1.0 as an integer and NaN as a number; a config cannot mean either.
Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: type(value) is int,
            "number": lambda _, value: type(value) in (int, float) and math.isfinite(value),
        }
    ),
)
TYPES = {
    "array": "a list",
    "object": "keys with values",
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "null": "null",
}
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
    "minLength": "not empty",
}


def expected(schema: dict) -> str:
    """Return what a schema allows, in words: 'a number, above 0, below 1'."""
    if "x-expected" in schema:
        return schema["x-expected"]
    if "minProperties" in schema:
        return "at least one name"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(map(expected, schema[key]))
    if "const" in schema:
        return yaml_text(schema["const"])
    if "enum" in schema:
        return ", ".join(map(yaml_text, schema["enum"]))
    kinds = schema.get("type", "object")
    words = " or ".join(TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds))
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None:
        words += f" of {least}" if least == most else f" of at least {least}"
    bounds = [text.format(schema[key]) for key, text in BOUNDS.items() if key in schema]
    bounds += ["all different"] if schema.get("uniqueItems") else []
    bounds += [f"each {expected(schema['items'])}"] if "items" in schema else []
    return ", ".join([words, *bounds])


def yaml_text(value: object) -> str:
    """Return a value as YAML text."""
    return value if isinstance(value, str) else json.dumps(value)


def check(value: object, schema: dict) -> None:
    """Raise an InputError with one line for each violation of the schema."""
    errors = Validator(schema).iter_errors(value)
    messages = [message(error) for error in sorted(errors, key=lambda e: [str(p) for p in e.path])]
    if messages:
        raise InputError("\n".join(messages))


def message(error: jsonschema.ValidationError) -> str:
    """Return one line on one violation of the schema: the key, the error, the allowed values."""
    key = ".".join(str(part) for part in error.absolute_path)
    name, value, rule = f"config key '{key}'" if key else "the config", error.instance, error.schema
    if error.validator == "additionalProperties":
        allowed = list(rule["properties"])
        unknown = [k for k in value if k not in allowed]
        keys = ", ".join(f"'{key}.{k}'" if key else f"'{k}'" for k in unknown)
        near = [m for k in unknown for m in difflib.get_close_matches(str(k), allowed, n=1)]
        hint = f"; did you mean {', '.join(repr(m) for m in near)}?" if near else ""
        return f"config key {keys} is unknown; allowed here: {', '.join(allowed)}{hint}"
    if error.validator == "required":
        missing = [repr(k) for k in error.validator_value if k not in value]
        return f"{name} lacks {', '.join(missing)}, which is required"
    if error.validator == "not":
        both = " and ".join(repr(k) for k in error.validator_value["required"])
        return f"{name} has both {both}; expected one of them, or neither"
    if error.validator in ("anyOf", "oneOf") and isinstance(value, list):
        lists = [i for i, part in enumerate(error.validator_value) if part.get("type") == "array"]
        if inside := [e for e in error.context if e.schema_path[0] in lists]:
            return "\n".join(map(message, inside))  # the errors inside the list
    is_name = "propertyNames" in error.absolute_schema_path
    found = f"{name}: found the name {value!r}" if is_name else f"{name} is {value!r}"
    word = "allowed:" if error.validator in ("enum", "oneOf") else "expected"
    wanted = expected(rule)
    return f"{found}; {word} {wanted}{hint_of_type(value, wanted)}"


def hint_of_type(value: object, wanted: str) -> str:
    """Return why YAML read a value as another type than intended, or nothing."""
    expects_text = "a text" in wanted or "a name" in wanted
    if expects_text and not isinstance(value, str | dict | list | None):
        return (
            f"; write it in quotes, as in {str(value)!r}: without them YAML does not read it as "
            "text, and drops leading zeros"
        )
    if isinstance(value, str) and is_number(value):
        return (
            "; it was read as text, as YAML reads 1e-3 (write 1.0e-3), and as Snakemake reads "
            "nested values of --config (use a config file)"
        )
    return ""


def is_number(text: str) -> bool:
    """Return whether a text would be a number without its quotes."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def with_defaults(value: dict, schema: dict) -> dict:
    """Fill in the defaults of the schema, at every depth."""
    for key, part in schema.get("properties", {}).items():
        if "default" in part:
            default = deepcopy(part["default"])
            value.setdefault(key, default)
            if isinstance(default, dict):
                value[key] = default | value[key]
        if isinstance(value.get(key), dict):
            with_defaults(value[key], part)
    if isinstance(entries := schema.get("additionalProperties"), dict):
        for entry in value.values():
            with_defaults(entry, entries)
    return value
