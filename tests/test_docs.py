"""The pages: what is generated is as committed, and every command in them is run or tried."""

from conftest import REPOSITORY
from stpm_bench.config_page import page

DOCS = REPOSITORY / "docs"


# The page of config keys


def test_the_page_of_config_keys_is_what_the_schema_says():
    assert (DOCS / "configuration.md").read_text() == page(), (
        "docs/configuration.md: run `python -m stpm_bench config-docs` and commit what it writes"
    )


def test_every_key_of_that_page_has_a_meaning():
    lines = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(lines) > 60
    assert [line for line in lines if len(line.split(" | ")) != 4 or line.endswith("|  |")] == []
