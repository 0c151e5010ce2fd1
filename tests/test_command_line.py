import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from stpm_bench.__main__ import main
from stpm_bench.errors import InputError
from stpm_bench.files import sha256
from stpm_bench.results import load_array
from stpm_bench.steps import STEPS


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_every_step_explains_itself(step, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([step.__name__.replace("_", "-"), "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert " ".join(step.__doc__.split()) in text
    for name in step.__kwdefaults__ or {}:
        assert f"--{name.replace('_', '-')}" in text


def test_an_error_of_the_users_is_one_line_on_the_terminal_and_in_the_log(tmp_path, capsys):
    log = tmp_path / "logs" / "prepare.log"
    options = ["--root", str(tmp_path), "--category", "bottle", "--split", "train"]
    status = main(["prepare", *options, "--output", str(tmp_path / "out"), "--log", str(log)])
    assert status == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "bottle" in printed
    assert "Traceback" not in printed
    assert log.read_text() == printed
    assert not (tmp_path / "out").exists()


def test_a_teacher_by_hand_says_what_it_needs(tmp_path, capsys):
    output = ["--output", str(tmp_path / "teacher.pt")]
    assert main(["teacher", "--backbone", "resnet18", "--pretrain", "digits", *output]) == 1
    assert "error: --pretrain needs --data: expected the .npz" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["teacher", "--backbone", "vgg", *output])
    assert "invalid choice: 'vgg'" in capsys.readouterr().err


def test_a_file_that_no_step_wrote_is_named(tmp_path, capsys):
    fit = ["--test", str(tmp_path), "--fit", str(tmp_path)]
    cell = ["--cell", str(tmp_path), "--settings", '{"masks": "nearest"}']
    assert main(["evaluate", *fit, *cell]) == 1
    assert f"error: {tmp_path}/score.json: no such file" in capsys.readouterr().err
    teacher = tmp_path / "teacher.pt"
    torch.save({"conv1.weight": torch.zeros(1)}, teacher)
    (tmp_path / "fit.json").write_text(
        json.dumps({"failure": None, "teacher_sha256": sha256(teacher)})
    )
    assert main(["score", *fit, "--teacher", str(teacher), "--layers", "1"]) == 1
    assert "teacher.pt: was not written by the step" in capsys.readouterr().err


def test_a_damaged_array_is_named(tmp_path):
    np.save(tmp_path / "maps.npy", np.zeros((4, 8, 8)))
    (tmp_path / "maps.npy").write_bytes((tmp_path / "maps.npy").read_bytes()[:500])
    with pytest.raises(InputError, match=r"maps.npy: cannot be read .*Delete it"):
        load_array(tmp_path / "maps.npy")


def test_a_bug_shows_its_traceback(tmp_path, capsys):
    (tmp_path / "studies.csv").write_text("no,such,columns\n1,2,3\n")
    assert main(["collect", "--results", str(tmp_path)]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    program = (
        "import sys; from stpm_bench.__main__ import parser; parser(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
