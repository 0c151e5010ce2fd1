"""The page of measured benchmarks, made from the JSON files that `benchmark --output` wrote."""

import json
from pathlib import Path

import pandas as pd

from stpm_bench.errors import InputError

HEAD = """<!-- Made by `python -m stpm_bench benchmark-docs` from docs/measured/; do not edit. -->
# Measured speed

Every number of this page comes from a file that a benchmark wrote; each table names its files,
which also have the versions, the sizes and the load of the machine. Ratios and shares compare rows
of one file, which were measured in turns. `AVX2` on a processor that has more says that PyTorch was
held to it (`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2`).
[Cost](cost.md) lists the commands. To add a machine, write its files with
`--output docs/measured/BENCHMARK-MACHINE.json`, then run `python -m stpm_bench benchmark-docs`.
"""


def page(folder: Path) -> str:
    """Return the page: for each benchmark one table, with the rows of all of its files.

    Args:
        folder: of JSON files as `record.record` describes them; links point to its name.

    Raises:
        InputError: a file is not such a record.
    """
    records: dict[str, list[tuple[Path, dict]]] = {}
    for file in sorted(folder.glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            records.setdefault(content["benchmark"], []).append((file, content))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{file}: expected what 'benchmark NAME --output FILE' writes "
                f"({type(error).__name__}: {error}); write it again, or remove it"
            ) from error
    parts = [HEAD]
    for name, files in sorted(records.items()):
        table = pd.concat([rows(content) for _, content in files], ignore_index=True)
        shown = table.astype(object).where(table.notna(), None)
        links = ", ".join(f"[{f.name}]({folder.name}/{f.name}) ({about(c)})" for f, c in files)
        parts += [f"## {name}\n", shown.to_markdown(index=False, floatfmt=".3g"), f"\n{links}\n"]
    return "\n".join(parts)


def rows(content: dict) -> pd.DataFrame:
    """Return a record's rows, with what they were measured on as the first column."""
    machine = content["machine"]
    device = machine["device"] if machine["device"] != "cpu" else machine["capability"]
    table = pd.DataFrame(content["results"])
    table.insert(0, "processor", f"{device}, threads: {content['threads']}")
    return table


def about(content: dict) -> str:
    """Return the machine, runs and versions of a record in a few words."""
    machine, versions = content["machine"], content["versions"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load']}; "
        f"{content['runs']} runs; PyTorch {versions['torch']}, "
        f"commit {(versions['git_commit'] or 'unknown')[:7]}"
    )
