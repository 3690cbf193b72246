"""The BUILD.bazel files cover the tree, and tell of what is missing from them.

Bazel itself needs a network; these tests need neither.
"""

import ast
import functools
import importlib
import os
import re
import shutil
import sys
import types
from pathlib import Path

import pytest
from build_files import LABELS, NAME, PYTHON_RULES, Target, Workspace
from packaging.requirements import Requirement

# Python 3.10 has it from pytest, under another name.
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

# Names of packages that are not those of their modules.
PACKAGES = {"PIL": "pillow", "absl": "absl_py", "grpc": "grpcio", "sklearn": "scikit_learn"}
ROOT = Path(__file__).resolve().parents[1]
LOCK = "requirements_lock.txt"
SELF = "bignas-tf"


def normalized(name):
    return re.sub(r"[-_.]+", "_", name).lower()


def source_folders(root):
    """What is linted is what belongs to targets."""
    return re.search(r"^SOURCES := (.*)$", (root / "Makefile").read_text(), re.MULTILINE)[1].split()


def requirements(root):
    """Those of pyproject.toml that the lock is of, by normalized name: with the extra `dev`."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    waiting, found = [*project["dependencies"], *extras["dev"]], {}
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name == SELF:
            waiting += [text for extra in requirement.extras for text in extras[extra]]
        else:
            found[normalized(requirement.name)] = requirement.specifier
    return found


def locked(root):
    """Versions of each package in the lock, and what each brings along."""
    versions, brings, current = {}, {}, None
    for line in (root / LOCK).read_text().splitlines():
        if pinned := re.match(r"([\w.-]+)==(\S+)", line):
            current = normalized(pinned[1])
            versions.setdefault(current, set()).add(pinned[2])
        elif by := re.match(r"    #   (?:via )?([\w.-]+)|    # via ([\w.-]+)", line):
            brings.setdefault(normalized(by[1] or by[2]), set()).add(current)
    return versions, brings


def with_their_own(packages, brings):
    seen, waiting = set(), list(packages)
    while waiting:
        if (package := waiting.pop()) not in seen:
            seen.add(package)
            waiting += brings.get(package, ())
    return seen


@functools.cache
def imports(text):
    """Dotted names that a module may import, wherever it does; `from a import b` gives two."""
    found, waiting = set(), [ast.parse(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            inside = getattr(node, block, ())
            waiting += inside if isinstance(inside, list) else ()
    return found


def module_files(sources, dotted, importer):
    """Files that an import of our own runs, the packages' `__init__.py` among them."""
    path = dotted.replace(".", "/")
    parts = importer.split("/")[:-1]
    # A test puts benchmarks/ on the path.
    for folder in [*("/".join(parts[:n]) for n in range(len(parts), -1, -1)), "benchmarks"]:
        base = f"{folder}/" if folder else ""
        if files := {f"{base}{path}.py", f"{base}{path}/__init__.py"} & sources:
            inits = (path[: cut.start()] for cut in re.finditer("/", path))
            return files | {f"{base}{init}/__init__.py" for init in inits}
    return set()


@functools.cache
def needs(sources, source, text):
    """Our own files and the packages from elsewhere that a source imports."""
    names = imports(text)
    files = set().union(*(module_files(sources, name, source) for name in names))
    tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    packages = {top for top in tops if not module_files(sources, top, source)}
    return files, {PACKAGES.get(top, top) for top in packages}


def label_problems(workspace, target, named_packages):
    for attribute in LABELS:
        for label in target.labels(attribute):
            if attribute == "deps" and label.startswith("@pypi//"):
                if label.removeprefix("@pypi//") not in named_packages:
                    yield f"{target.label}: pyproject.toml does not name {label}"
                continue
            named = workspace.resolved(label, target.package)
            if named is None:
                yield f"{target.label}: {label} of `{attribute}` is nothing that it may see"
            elif attribute == "deps" and not (
                isinstance(named, Target) and named.rule in PYTHON_RULES
            ):
                yield f"{target.label}: {label} of `deps` is not Python"
    for label in re.findall(r"\$\(\w+ (.+?)\)", " ".join(target.attributes.get("args", ()))):
        if label not in target.labels("srcs") + target.labels("data"):
            yield f"{target.label}: {label} of `args` is neither in its `srcs` nor its `data`"


def main_problems(workspace, target, files, packages):
    if module := target.attributes.get("main_module"):
        mains = {path for path in files if path == f"{module.replace('.', '/')}.py"}
        if not mains and module not in packages:
            yield f"{target.label}: there is no {module} to run"
    else:
        main = target.attributes.get("main", f"{target.name}.py")
        mains = workspace.files(target, ["srcs"]) & {f"{target.package}/{main}"}
        if not mains:
            yield f"{target.label}: its main file {main} is not in its `srcs`"
    for main in mains:
        if 'if __name__ == "__main__":' not in (workspace.root / main).read_text():
            yield f"{target.label}: {main} does nothing when it is run"


def import_problems(workspace, target, files, packages):
    for source in sorted(workspace.files(target, ["srcs"])):
        text = (workspace.root / source).read_text()
        own, foreign = needs(workspace.sources, source, text)
        for needed in sorted(own - files) + sorted(foreign - packages):
            yield f"{target.label}: {source} imports {needed}, and no dependency has it"


def problems(root):
    """All that is wrong with the BUILD.bazel files of a tree, a line each."""
    workspace = Workspace(root)
    yield from workspace.problems
    (versions, brings), named_packages = locked(root), requirements(root)
    for name, allowed in named_packages.items():
        if not versions.get(name) or any(v not in allowed for v in versions[name]):
            received = ", ".join(sorted(versions.get(name, ["none"])))
            yield f"{LOCK}: {name} must be {allowed}. Received: {received}"
    for name in brings:  # rules_python must be told of circles
        if name in with_their_own(brings[name], brings):
            yield f"{LOCK}: {name} needs itself, by others"
    owners = {}
    for target in workspace.targets.values():
        yield from label_problems(workspace, target, named_packages)
        if target.rule in PYTHON_RULES:
            files, packages = workspace.closure(target)
            packages = with_their_own(packages, brings)
            yield from import_problems(workspace, target, files, packages)
            if target.rule != "py_library":
                yield from main_problems(workspace, target, files, packages)
            for source in workspace.files(target, ["srcs"]):
                owners.setdefault(source, []).append(target.label)
    folders = source_folders(root)
    for source in sorted(workspace.sources):
        belongs = owners.get(source, ["no target"])
        if source.split("/")[0] in folders and (len(belongs) > 1 or source not in owners):
            yield f"{source} belongs to {' and '.join(belongs)}"


def is_long(path):
    """Whether all tests of a file are marked `long`."""
    body = ast.parse(path.read_text()).body
    marks = [ast.unparse(n) for n in body if isinstance(n, ast.Assign)]
    if any(re.match(r"pytestmark = .*mark\.long", mark, re.DOTALL) for mark in marks):
        return True
    tests = [n for n in body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    return all(any("mark.long" in ast.unparse(d) for d in t.decorator_list) for t in tests)


def test_every_source_belongs_to_one_target_and_every_label_and_import_resolves():
    assert list(problems(ROOT)) == []


def test_files_of_long_tests_only_are_left_out_of_all():
    tests = [t for t in Workspace(ROOT).targets.values() if t.rule == "py_test"]
    files = {ROOT / t.package / t.attributes["srcs"][0]: t for t in tests}
    assert len(files) > 100
    for path, target in files.items():
        assert is_long(path) == ("manual" in target.attributes["tags"]), target.label


@pytest.fixture(scope="module")
def links(tmp_path_factory):
    """A copy of what the checks read, in links."""
    root = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__", "_build")
    for name in source_folders(ROOT):
        shutil.copytree(ROOT / name, root / name, copy_function=os.symlink, ignore=ignored)
    for name in (NAME, ".bazelignore", "Makefile", "README.md", "pyproject.toml", LOCK):
        os.symlink(ROOT / name, root / name)
    return root


@pytest.fixture
def tree(links):
    """The copy with `write`, whose files are gone after the test."""
    written = []

    def write(name, text):
        written.append(name)
        (links / name).unlink(missing_ok=True)
        (links / name).write_text(text)

    yield types.SimpleNamespace(root=links, write=write)
    for name in written:
        (links / name).unlink()
        if (ROOT / name).exists():
            os.symlink(ROOT / name, links / name)


LIBRARY, TESTS = f"bignas_tf/{NAME}", f"tests/{NAME}"


@pytest.mark.parametrize(
    ("file", "old", "new", "found"),
    [
        (LIBRARY, '"ops.py",', "", "bignas_tf/ops.py belongs to no target"),
        (
            LIBRARY,
            '["child.py"]',
            '["child.py", "ops.py"]',
            "ops.py belongs to //bignas_tf:spec and",
        ),
        (LIBRARY, '":commands",', '":comands",', "//bignas_tf:cli: :comands of `deps` is nothing"),
        (
            LIBRARY,
            '["py.typed"]',
            '["py.type"]',
            "//bignas_tf:package: py.type of `data` is nothing",
        ),
        (LIBRARY, '":report",', "", "imports bignas_tf/report/__init__.py"),
        (LIBRARY, '":package",', "", "backend.py imports bignas_tf/__init__.py, and no"),
        (LIBRARY, '"@pypi//moocore",', "", "hypervolume.py imports moocore, and no dependency"),
        (LIBRARY, '"@pypi//keras_tuner",', "", "chief.py imports keras_tuner, and no dependency"),
        (
            LOCK,
            "\nthreadpoolctl==",
            "\nt==",
            "predictor.py imports threadpoolctl, and no dependency",
        ),
        (LIBRARY, "@pypi//tqdm", "@pypi//pandas", "pyproject.toml does not name @pypi//pandas"),
        (LIBRARY, "bignas_tf.cli", "bignas_tf.main", "there is no bignas_tf.main to run"),
        (LIBRARY, '"report/*.html"', '"report/*.css"', "nothing matches glob(['report/*.css'])"),
        (
            LIBRARY,
            '[":cli"]',
            '["//tests:support"]',
            "//tests:support of `deps` is nothing that it",
        ),
        (LIBRARY, '[":cli"]', '["//export:scripts"]', "//export:scripts of `deps` is not Python"),
        (LIBRARY, "py_library.bzl", "py_libary.bzl", "no py_library is known in @rules_python"),
        (
            f"benchmarks/{NAME}",
            '"evidence_plots.py",',
            "",
            "benchmarks/evidence_plots.py does nothing",
        ),
        (f"zoo/{NAME}", "srcs = [path]", "srcs = []", "publish_cifar.py is not in its `srcs`"),
        (TESTS, '":test_evaluation"', "", "test_shared_prefix.py imports tests/test_evaluation.py"),
        (TESTS, "$(rootpath %s)", "$(rootpath x%s)", "of `args` is neither in its `srcs` nor"),
        (TESTS, 'path[:-len(".py")]', '"one"', "//tests:one is declared twice"),
        ("pyproject.toml", '"moocore>=0.2"', '"moocore>=9"', f"{LOCK}: moocore must be >=9"),
        (LOCK, "\npillow==", "\nwillow==", f"{LOCK}: pillow must be >=11. Received: none"),
    ],
)
def test_what_is_missing_or_wrong_is_found(file, old, new, found, tree):
    text = (ROOT / file).read_text()
    assert old in text
    tree.write(file, text.replace(old, new, 1))
    assert [line for line in problems(tree.root) if found in line]


def test_a_target_that_depends_on_itself_is_found(tree):
    old, new = '["layers/*.py"]),\n    deps = [', '["layers/*.py"]),\n    deps = [":supernet",'
    tree.write(LIBRARY, (ROOT / LIBRARY).read_text().replace(old, new))
    with pytest.raises(ValueError, match="//bignas_tf:layers depends on itself"):
        list(problems(tree.root))


def test_a_new_file_is_found_until_it_has_a_target(tree):
    before = list(problems(tree.root))
    tree.write("bignas_tf/new.py", "import numpy.linalg\n")
    tree.write("bignas_tf/zoo/new.py", "import moocore.one\n")
    assert set(problems(tree.root)) - set(before) == {
        "//bignas_tf:zoo: bignas_tf/zoo/new.py imports moocore, and no dependency has it",
        "bignas_tf/new.py belongs to no target",
    }
