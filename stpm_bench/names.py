"""Allowed names of categories: they occur in folders, table rows, wildcards and labels."""

import unicodedata

# Names of other rows in the tables, and the keyword that a study may give instead of categories.
RESERVED = ("mean", "textures", "objects", "all")
# Snakemake's wildcards {} and path variables <>; separators of paths and of Markdown's tables; and
# characters that file systems of other computers reject.
FORBIDDEN = '{}<>/\\|"*?:'
# A cell's folder name contains every axis, and file systems allow 255 bytes.
LONGEST = 100


def wrong_category(name: str) -> str:
    """Return why a category cannot have a name, and what is expected; '' if it can."""
    found = f"{name!a} is not allowed as the name of a category: "
    if name in RESERVED:
        return f"{found}tables and studies use it themselves (like {', '.join(RESERVED)})"
    if wrong := sorted({c for c in name if c in FORBIDDEN}):
        return f"{found}it contains {' '.join(wrong)}; expected none of {' '.join(FORBIDDEN)}"
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        return (
            f"{found}it is not UTF-8 (or your locale is not), or contains a control character; "
            "expected printable characters"
        )
    if name != name.strip():
        return f"{found}it begins or ends with a space; expected no such space"
    if (length := len(name.encode())) > LONGEST:
        return f"{found}it has {length} bytes; expected at most {LONGEST}"
    return ""


def wrong_folder(path: str) -> str:
    """Return why results and downloads cannot be in a folder; '' if they can.

    Snakemake reads {NAME} in a rule's paths as a wildcard and <NAME> as a path variable.
    """
    wrong = sorted({c for c in path if c in "{}<>" or unicodedata.category(c) in ("Cc", "Cs")})
    if not wrong:
        return ""
    return f"{path!a} has {' '.join(map(ascii, wrong))}; expected a path without {{ }} < >"
