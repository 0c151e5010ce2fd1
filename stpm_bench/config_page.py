"""Makes docs/configuration.md from the config's schema and the methods' settings."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import asdict, fields

from stpm_bench import methods as registry
from stpm_bench.config import SCHEMA, load
from stpm_bench.methods.interface import Settings
from stpm_bench.schema import expected, yaml_text

HEADER = "<!-- Made by `python -m stpm_bench config-docs`; edit stpm_bench/config.schema.yaml. -->"


def page() -> str:
    """Return the page: one table for each part of the config, then one for each method file."""
    schema = load(SCHEMA)
    parts = [HEADER, f"# {schema['title']}", schema["description"].strip()]
    parts.append("## Top level\n\n" + table(rows(schema, schema)))
    for key, part in schema["properties"].items():
        if is_section(part, schema, schema):
            parts += sections(key, part, schema)
    return "\n\n".join(parts) + "\n\n" + "\n\n".join(method_sections()) + "\n"


def resolved(part: dict, schema: dict) -> dict:
    """Return a part of the schema merged with the target of its `$ref`; its own keys win."""
    if "$ref" not in part:
        return part
    return schema["$defs"][part["$ref"].rpartition("/")[2]] | part


def is_section(part: dict, parent: dict, schema: dict) -> bool:
    """Return whether the keys below a key have a table; shared definitions have one at the top."""
    shared = "$ref" in part and parent is not schema
    return resolved(part, schema).get("type") == "object" and not shared


def sections(key: str, part: dict, schema: dict) -> Iterator[str]:
    """Yield heading, meaning and table of a key with keys below it, then those of these keys."""
    part = resolved(part, schema)
    entries = part.get("additionalProperties") or {}
    names = f"\n\nNAME is {part['propertyNames']['x-expected']}." if entries else ""
    shown_key = f"{key}.NAME" if entries else key
    yield f"## `{shown_key}`\n\n{part['description']}{names}"
    keys = entries if entries else part
    if "properties" in keys:
        yield table(rows(keys, schema, part.get("default", {})))
    for name, below in keys.get("properties", {}).items():
        if is_section(below, keys, schema):
            yield from sections(f"{shown_key}.{name}", below, schema)


def rows(part: dict, schema: dict, defaults: dict | None = None) -> Iterator[tuple[str, ...]]:
    """Yield key, allowed values, default and meaning of each key, except keys with a section.

    Args:
        defaults: the part's own defaults for its keys, in addition to theirs.
    """
    stpm_meanings = meanings(registry.built_in()[registry.DEFAULT])
    for key, below in part["properties"].items():
        if is_section(below, part, schema):
            continue
        below = resolved(below, schema)
        default = (defaults or {}).get(key, below.get("default", ...))
        shown = f"`{yaml_text(default)}`" if default is not ... else ""
        if key in part.get("required", []):
            shown = "required"
        meaning = below.get("description") or stpm_meanings[key]
        yield f"`{key}`", expected(below), shown, meaning


def method_sections() -> Iterator[str]:
    """Yield the fields of each method file, and how its built-in methods differ."""
    names = ", ".join(f"`{name}`" for name in registry.built_in())
    yield f"`like` is one of {names}; `{registry.DEFAULT}` where it is left out."
    for file in registry.FILES:
        methods = registry.module_of(file).METHODS
        first, settings = next(iter(methods.items()))
        known, meaning = registry.schema(settings)["properties"], meanings(settings)
        names = ", ".join(f"`{name}`" for name in methods)
        yield f"### Fields of {names}"
        yield table(
            (
                f"`{field.name}`",
                expected(known[field.name]),
                f"`{yaml_text(asdict(settings)[field.name])}`",
                meaning[field.name] + (" *Evaluation.*" if field.metadata["evaluation"] else ""),
            )
            for field in fields(settings)
        )
        for name, other in methods.items():
            changed = [
                f"`{key}: {yaml_text(value)}`"
                for key, value in asdict(other).items()
                if value != asdict(settings)[key]
            ]
            if changed:
                yield f"`{name}` is `{first}` but for {', '.join(changed)}."


def meanings(settings: Settings) -> dict[str, str]:
    """Return field -> its meaning, from the docstrings of a method's settings and their bases."""
    found = {}
    for kind in reversed(type(settings).__mro__):
        text = inspect.cleandoc(kind.__dict__.get("__doc__") or "")
        for name, meaning in re.findall(r"^(\w+): (.*(?:\n +.*)*)", text, re.M):
            sentence = " ".join(meaning.split()).rstrip(".") + "."
            found[name] = sentence[0].upper() + sentence[1:]
    return found


def table(lines: Iterator[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    head = [("key", "value", "default", "meaning"), ("---",) * 4]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in [*head, *lines])
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
