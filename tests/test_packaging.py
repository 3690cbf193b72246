"""What pyproject.toml tells an installer, and what its packages hold."""

import importlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import bignas_tf
from bignas_tf.zoo import get_preset

# Python 3.10 has it from pytest, under another name.
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("3.12.3", False),
        ("3.12.4", True),  # the last for Python 3.10
        ("3.13.2", False),
        ("3.14.1", False),
        ("3.15.0", False),
        ("3.15.1", True),
    ],
)
def test_only_releases_of_keras_with_the_fixes_that_security_md_names_are_taken(version, taken):
    (keras,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "keras")
    assert (version in keras.specifier) is taken


BUILT = ("build", "dist", "runs", "*.egg-info", "__pycache__", "_build", ".[!b]*")
USE = """
import bignas_tf, numpy
from bignas_tf.report import page
from bignas_tf.zoo import BigNASCifarS, get_preset, decode_predictions
model = BigNASCifarS(weights="cifar10")
scores = model(numpy.zeros((1, 24, 24, 3), "float32"))
print(decode_predictions(scores, 1, get_preset("bignascifar_s")["labels"])[0][0][0])
print(bignas_tf.__file__)
"""


def run(*command, cwd):
    done = subprocess.run(  # noqa: S603 - our own commands
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A source package of a copy of the tree, unpacked, and the wheel that is built from it."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("packages")
    shutil.copytree(ROOT, folder / "tree", ignore=shutil.ignore_patterns(*BUILT))
    build = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])('..')"
    run(sys.executable, "-c", build, "build_sdist", cwd=folder / "tree")
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    unpacked = source.with_name(source.name.removesuffix(".tar.gz"))
    run(sys.executable, "-c", build, "build_wheel", cwd=unpacked)
    (wheel,) = folder.glob("*.whl")
    return unpacked, wheel


@pytest.mark.long
def test_the_source_package_has_every_file_of_the_tests(packages):
    unpacked, _ = packages
    tracked = run("git", "ls-files", cwd=ROOT).split("\n")
    needed = ("bignas_tf/", "tests/", "docs/", "zoo/", "export/", "notebooks/", "benchmarks/")
    expected = {name for name in tracked if name.startswith(needed) or "/" not in name and name}
    missing = {name for name in expected if not (unpacked / name).is_file()}
    assert missing == {".gitignore"}


@pytest.mark.long
def test_the_wheel_works_without_the_checkout(packages, tmp_path):
    _, wheel = packages
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps")
    run(*pip, "--ignore-installed", wheel, cwd=tmp_path)
    # Only now, so that pip has nothing to do with them: the packages that are here already.
    # Their own .pth files, and with them the checkout, do not count in such a folder.
    (place,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (place / "present.pth").write_text(sysconfig.get_path("purelib"))
    label, found = run(python, "-I", "-c", USE, cwd=tmp_path).split()[-2:]
    assert Path(found).is_relative_to(place)
    assert label in get_preset("bignascifar_s")["labels"]
    command = (python, "-I", python.with_name("bignas"))
    assert run(*command, "--version", cwd=tmp_path) == f"bignas_tf {bignas_tf.__version__}\n"
    assert "bignas train --recipe" in run(*command, "show", cwd=tmp_path)
