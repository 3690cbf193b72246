import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

ROOT = Path(__file__).resolve().parents[2]
# `make test-long` asks for more.
COUNTS = os.environ.get("BIGNAS_CONVERT_COUNTS", "cifar=1,bignas=1")
# Images that the zoo's weights were trained on; without them untrained weights are converted.
CIFAR10 = os.environ.get("BIGNAS_CIFAR10")


@pytest.mark.slow
def test_finished_children_are_not_converted_again_and_failures_end_in_status_1(
    benchmark, tmp_path, capsys
):
    main = benchmark("convert_many").main
    arguments = ("", "--space=digits", "--quantizations=float32", f"--folder={tmp_path}")
    flags.FLAGS([*arguments, "--count=1"])
    assert main([]) == 0
    assert "untrained, random batch norm, seed 0" in capsys.readouterr().out
    (path,) = tmp_path.glob("digits.*.jsonl")
    header, line, end = path.read_text().split("\n")
    row = json.loads(line)
    assert end == ""
    assert (row["error"], row["agreement"], row["telling"]) == (None, 1.0, True)
    # An interrupted call may leave half a line; a failure of an earlier one still counts.
    failed = json.dumps({**row, "index": 1, "error": "VerificationError: much"})
    path.write_text(f"{header}\n{line}\n{failed}\n{line[:50]}")
    flags.FLAGS([*arguments, "--count=2"])
    assert main([]) == 1
    assert "failed: child 1, float32: VerificationError: much" in capsys.readouterr().out
    assert path.read_text() == f"{header}\n{line}\n{failed}\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("space", "quantizations"), [("cifar", "float32,int8"), ("bignas", "float32")]
)
def test_random_children_all_convert_and_agree(space, quantizations, tmp_path):
    count = dict(part.split("=") for part in COUNTS.split(","))[space]
    few = "BIGNAS_CONVERT_COUNTS" not in os.environ
    folder = tmp_path if few else ROOT / "runs" / "convert_many"
    done = subprocess.run(  # noqa: S603 - our own script
        [
            sys.executable,
            ROOT / "benchmarks" / "convert_many.py",
            f"--space={space}",
            f"--count={count}",
            f"--quantizations={quantizations}",
            f"--folder={folder}",
            *(["--run=cifar10", f"--data={CIFAR10}"] if CIFAR10 and space == "cifar" else []),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert f"\nfloat32{int(count):12}       0 " in done.stdout
