"""BUILD.bazel files, evaluated as Python: the targets of a tree, and what their labels name."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

NAME = "BUILD.bazel"
PYTHON_RULES = ("py_library", "py_binary", "py_test")
NATIVE_RULES = ("alias", "filegroup")
LABELS = ("srcs", "deps", "data", "actual")
PUBLIC = "//visibility:public"


@dataclass(frozen=True)
class Target:
    rule: str
    package: str
    name: str
    attributes: dict

    @property
    def label(self):
        return f"//{self.package}:{self.name}"

    def labels(self, attribute):
        value = self.attributes.get(attribute, [])
        return [value] if isinstance(value, str) else value


class Workspace:
    """The targets of a tree by label, its exported files, and what was wrong on the way."""

    def __init__(self, root):
        self.root = Path(root)
        ignored = (self.root / ".bazelignore").read_text().split()
        self.packages, tree = [], []
        for folder, folders, files in os.walk(self.root):
            relative = Path(folder).relative_to(self.root)
            folders[:] = sorted(f for f in folders if f[0] != "." and f not in ignored)
            if NAME in files:
                self.packages.append("" if relative == Path() else relative.as_posix())
            tree += [(relative / f).as_posix() for f in files]
        self.tree = frozenset(tree)
        self.sources = frozenset(f for f in tree if f.endswith(".py"))
        self.targets, self.exported, self.problems = {}, set(), []
        self._owners, self._closures = {}, {}
        self._inside = {package: [] for package in self.packages}
        for file in tree:
            self._inside[self.owner(file)].append(file)
        for package in self.packages:
            self._evaluate(package)

    def _evaluate(self, package):
        names = {}
        visibility = []

        def glob(include, exclude=()):
            found = self._matches(package, include) - self._matches(package, exclude)
            if not found:  # an error from Bazel 8 on
                self.problems.append(f"//{package}: nothing matches glob({include})")
            return sorted(found)

        def set_package(default_visibility):
            visibility.extend(default_visibility)

        def load(file, *symbols):
            for symbol in symbols:
                if symbol not in PYTHON_RULES or file != f"@rules_python//python:{symbol}.bzl":
                    self.problems.append(f"//{package}: no {symbol} is known in {file}")
                names[symbol] = rule(symbol)

        def rule(kind):
            def declare(name, **attributes):
                target = Target(kind, package, name, {"visibility": visibility, **attributes})
                if target.label in self.targets:
                    self.problems.append(f"{target.label} is declared twice")
                self.targets[target.label] = target

            return declare

        names |= {"glob": glob, "package": set_package, "load": load}
        names["exports_files"] = lambda files: self.exported.update(
            f"//{package}:{file}" for file in files
        )
        names |= {kind: rule(kind) for kind in NATIVE_RULES}
        path = self.root / package / NAME
        exec(compile(path.read_text(), str(path), "exec"), names)  # noqa: S102 - our own file

    def _matches(self, package, patterns):
        start = f"{package}/" if package else ""
        wild = {"**/": "(.*/)?", "*": "[^/]*"}
        regexes = [
            re.compile("".join(wild.get(p) or re.escape(p) for p in re.split(r"(\*\*/|\*)", one)))
            for one in patterns
        ]
        inside = [f[len(start) :] for f in self._inside[package]]
        return {name for name in inside if any(regex.fullmatch(name) for regex in regexes)}

    def owner(self, path):
        """The package of a file: that of the nearest folder with a BUILD.bazel."""
        folder = path.rpartition("/")[0]
        if folder not in self._owners:
            package = folder in self.packages
            self._owners[folder] = folder if package else self.owner(folder)
        return self._owners[folder]

    def resolved(self, label, package):
        """A target, the path of a file relative to the root, or None."""
        if not label.startswith("//"):
            label = f"//{package}:{label.removeprefix(':')}"
        elif ":" not in label:
            label = f"{label}:{label.rsplit('/', 1)[1]}"
        if label in self.targets:
            target = self.targets[label]
            visible = target.package == package or PUBLIC in target.attributes["visibility"]
            return target if visible else None
        owner, _, name = label[2:].partition(":")
        path = f"{owner}/{name}".lstrip("/")
        mine = owner == package or label in self.exported
        return path if mine and path in self.tree and self.owner(path) == owner else None

    def files(self, target, attributes):
        """Paths that labels of a target come to, through other groups of files."""
        found = set()
        for attribute in attributes:
            for label in target.labels(attribute):
                named = self.resolved(label, target.package)
                if isinstance(named, Target):
                    if named.rule not in PYTHON_RULES:
                        found |= self.files(named, ("srcs", "actual"))
                elif named is not None:
                    found.add(named)
        return found

    def closure(self, target):
        """Files of a target and all that it depends on, and the packages from PyPI."""
        if target.label not in self._closures:
            self._closures[target.label] = None  # under way
            files, packages = set(self.files(target, ("srcs", "data"))), set()
            for label in target.labels("deps") + target.labels("actual"):
                named = None if label[0] == "@" else self.resolved(label, target.package)
                if label.startswith("@pypi//"):
                    packages.add(label.removeprefix("@pypi//"))
                elif isinstance(named, Target):
                    theirs = self.closure(named)
                    files |= theirs[0]
                    packages |= theirs[1]
            self._closures[target.label] = files, packages
        if self._closures[target.label] is None:
            raise ValueError(f"{target.label} depends on itself")
        return self._closures[target.label]
