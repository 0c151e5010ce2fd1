"""If the commit of a result is unknown, its record gives the reason."""

import shutil
import subprocess

import pytest

from stpm_bench import provenance

GIT = shutil.which("git")


@pytest.mark.skipif(GIT is None, reason="needs git")
def test_a_checkouts_commit_or_why_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    record = provenance.git_commit(unpacked)
    assert record["git_commit"] is None
    assert f"git says of {unpacked}: fatal: not a git repository" in record["git_commit_missing"]

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run([GIT, "-C", str(unpacked), *who, *arguments], check=True)

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    assert len(provenance.git_commit(unpacked)["git_commit"]) == 40
    inside = unpacked / "inside"
    inside.mkdir()
    record = provenance.git_commit(inside)
    assert record["git_commit_missing"] == f"{inside} lies in another repository, {unpacked}"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git cannot be run" in provenance.git_commit(unpacked)["git_commit_missing"]
