"""Every mode equals the extracted child: in float64, so in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("central.py")


def test_every_mode_equals_the_extracted_child():
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    finished = subprocess.run(  # noqa: S603
        [sys.executable, PROGRAM, "digits", "3", "1"],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(finished.stdout)
    assert found.pop("genotypes") == 3
    assert set(found) == {"static", "masked", "gradients"}
    assert max(found.values()) < 1e-9
