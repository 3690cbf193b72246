"""docs/android.md says what the code does."""

import re
from pathlib import Path

from bignas_tf.deploy.android.output import STATUSES, TIMED
from bignas_tf.deploy.android.results import COLUMNS
from bignas_tf.deploy.android.tool import BACKENDS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "android.md").read_text(encoding="utf-8")


def section(title):
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_page_has_every_status_and_whether_it_has_figures():
    table = re.findall(r"^\| (`.+?) \| (yes|no) \|", section("The CSV"), re.MULTILINE)
    figures = {status: told for names, told in table for status in re.findall("`(.+?)`", names)}
    assert figures == {status: "yes" if status in TIMED else "no" for status in STATUSES}


def test_the_page_names_every_column():
    assert set(re.findall("`(.+?)`", section("The CSV"))) >= set(COLUMNS)


def test_the_page_names_every_flag_and_backend():
    script = (ROOT / "export" / "benchmark_android.py").read_text(encoding="utf-8")
    flags = re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', script)
    assert len(flags) == script.count("flags.DEFINE_")
    running = section("Running it")
    assert [flag for flag in flags if f"--{flag}" not in running] == []
    assert [name for name in BACKENDS if f"`{name}`" not in running] == []
