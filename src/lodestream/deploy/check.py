"""Checks a bundle, ours or one that was edited: keys, values, schedules, and that every name leads somewhere."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lodestream.deploy.bundle_schema import BundleFile, NewCluster
from lodestream.model.diagnostic import Diagnostic, Place
from lodestream.project.components import check_settings
from lodestream.project.fields import wrong_kind
from lodestream.project.mistakes import Mistakes, nearest
from lodestream.project.nodes import Node, from_yaml

MAIN = "databricks.yml"

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_BUILT_IN = ("bundle.name", "bundle.target", "workspace.file_path", "workspace.root_path",
             "workspace.current_user.short_name", "workspace.current_user.userName")  # fmt: skip
_FIXES = {
    "D103": "correct it, or remove it; a key that we do not write is not known here, even if Databricks knows it",
    "D203": "write what the message asks for",
    "D207": "keep one of continuous: and schedule:",
}
"""What to do in a bundle, where a project would be told otherwise."""

_COMPLEX = re.compile(r"\$\{var\.(\w+)\}")


def check_bundle(files: Mapping[str, bytes]) -> tuple[Diagnostic, ...]:
    """What is wrong with a bundle, sorted by file and line; nothing, when it is as we know bundles.

    Args:
        files: content by path relative to the bundle's folder.
    """
    mistakes = Mistakes()
    if MAIN not in files:
        mistakes.add(Place(MAIN, 1), "D105", "no such file in the bundle", fix="write it: lodestream deploy databricks")
        return tuple(mistakes.found)
    roots = {MAIN: from_yaml(files[MAIN], MAIN, mistakes)}
    for path in sorted(files):
        if path != MAIN and any(fnmatch.fnmatchcase(path, pattern) for pattern in _included(roots[MAIN])):
            roots[path] = from_yaml(files[path], path, mistakes)
    read = {path: root for path, root in roots.items() if root is not None}
    for path, root in read.items():
        if isinstance(root.value, dict):
            check_settings(BundleFile, path, root.plain(), root, root.place, mistakes)
        else:
            wrong_kind(mistakes, root, path, "a mapping")
    if all(root is not None and isinstance(root.value, dict) for root in roots.values()):
        _Names(read, files, mistakes).check()
    found = {replace(one, fix=_FIXES.get(one.code, one.fix)) for one in mistakes.found}
    return tuple(sorted(found, key=lambda one: (one.file, one.line, one.column, one.code, one.message)))


def _included(root: Node | None) -> list[str]:
    patterns = _at(root, "include")
    return [str(one.value) for one in patterns.value] if patterns and isinstance(patterns.value, list) else []


def _at(node: Node | None, *keys: str) -> Node | None:
    """What stands under `keys`, if it does."""
    for key in keys:
        node = node.value.get(key) if node is not None and isinstance(node.value, dict) else None
    return node


def _items(node: Node | None) -> Iterator[tuple[str, Node]]:
    if node is not None and isinstance(node.value, dict):
        yield from node.value.items()


def _list(node: Node | None) -> Iterator[Node]:
    if node is not None and isinstance(node.value, list):
        yield from node.value


class _Names:
    """What names other things: variables, resources, clusters, tasks, files."""

    def __init__(self, roots: Mapping[str, Node], files: Mapping[str, bytes], mistakes: Mistakes) -> None:
        self.roots, self.files, self.mistakes = roots, files, mistakes
        self.variables: dict[str, Node] = {}
        self.resources: dict[str, Place] = {}
        for root in roots.values():
            self.variables |= dict(_items(_at(root, "variables")))
            for kind, found in _items(_at(root, "resources")):
                for key, _ in _items(found):
                    name, place = f"resources.{kind}.{key}", found.keys[key]
                    if name in self.resources:
                        mistakes.add(place, "D102", "resource appears twice", key=key, first=self.resources[name].file)
                    self.resources.setdefault(name, place)

    def check(self) -> None:
        """Note what leads nowhere."""
        main = self.roots.get(MAIN)
        for key in ("bundle", "targets"):
            if main is not None and _at(main, key) is None:
                self.mistakes.add(main.place, "D105", f"missing key in {MAIN}", key=key)
        for path, root in self.roots.items():
            self.references(root)
            for _, target in _items(_at(root, "targets")):
                variables = _at(target, "variables")
                for name, _ in _items(variables):
                    assert variables is not None
                    self.known("variable", name, self.variables, variables.keys[name])
            for _, job in _items(_at(root, "resources", "jobs")):
                self.job(path, job)

    def references(self, node: Node) -> None:
        """Each `${…}` within a node."""
        if isinstance(node.value, str):
            for name in _REFERENCE.findall(node.value):
                if name.startswith("var."):
                    self.known("variable", name.removeprefix("var."), self.variables, node.place)
                elif name.startswith("resources."):
                    self.known("resource", name.rpartition(".")[0], self.resources, node.place)
                else:
                    self.known("reference", name, _BUILT_IN, node.place)
        for _, inner in _items(node):
            self.references(inner)
        for inner in _list(node):
            self.references(inner)

    def known(self, what: str, name: str, among: Any, place: Place) -> None:
        """Note a name that is not among those that are."""
        if name not in among:
            self.mistakes.add(place, "D507", f"no such {what}", name=name, nearest=nearest(name, among))

    def job(self, path: str, job: Node) -> None:
        """What a job's tasks name."""
        if (always := _at(job, "continuous")) is not None and _at(job, "schedule") is not None:
            self.mistakes.add(always.place, "D207", "a job that always runs has no schedule")
        clusters: set[str] = set()
        tasks: set[str] = set()
        for cluster in _list(_at(job, "job_clusters")):
            if (key := _at(cluster, "job_cluster_key")) is not None:
                clusters.add(str(key.value))
            self.cluster(_at(cluster, "new_cluster"))
        for task in _list(_at(job, "tasks")):
            if (used := _at(task, "job_cluster_key")) is not None:
                self.known("cluster of the job", str(used.value), clusters, used.place)
            for before in _list(_at(task, "depends_on")):
                if (first := _at(before, "task_key")) is not None:  # of a task above, so that there is no circle
                    self.known("task before this one", str(first.value), tasks, first.place)
            if (key := _at(task, "task_key")) is not None:
                if str(key.value) in tasks:
                    self.mistakes.add(key.place, "D113", "task appears twice", name=key.value)
                tasks.add(str(key.value))
            if (file := _at(task, "spark_python_task", "python_file")) is not None:
                self.file(path, file)

    def cluster(self, node: Node | None) -> None:
        """The cluster that a variable holds is held to the same keys as one that stands there."""
        match = _COMPLEX.fullmatch(node.value) if node is not None and isinstance(node.value, str) else None
        held = _at(self.variables.get(match[1]) if match else None, "default")
        if match and held is not None:
            plain = held.plain()
            given = plain if isinstance(plain, dict) else {}
            check_settings(NewCluster, f"variable {match[1]}", given, held, held.place, self.mistakes)

    def file(self, path: str, node: Node) -> None:
        """A file of the bundle, named relative to the file that names it."""
        meant = posixpath.normpath(posixpath.join(posixpath.dirname(path), str(node.value)))
        self.known("file", meant, self.files, node.place)
