"""Runs the command lines of a page in this process, in a folder of the page's own."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from typer.testing import CliRunner

from lodestream.cli.root import app
from tests.docs.pages import ROOT

ROWS = 500
PROGRAMS = ("cat", "cp", "echo", "mkdir", "mv", "rm")
"""Programs that a page may use beside `lodestream`, `make` and `cd`; they run in the page's folder only."""

_STOPS = re.compile(r"\bends with (\d+)")
_HERE = re.compile(r"<<\s*'?(\w+)'?\s*$")


class Shell:
    """One page's shell.

    Args:
        folder: where it begins.
        instead: command lines and what is run in their place.
        elsewhere: command lines that are not run.
    """

    def __init__(self, folder: Path, instead: Mapping[str, str], elsewhere: Mapping[str, str]) -> None:
        self.folder = folder
        self.said = ""
        self._instead = instead
        self._elsewhere = elsewhere

    def run(self, text: str, place: str) -> None:
        """Run every line of a block; `self.said` is what they printed. A comment `ends with N` is the exit code."""
        self.said = ""
        lines = iter(text.splitlines())
        for line in lines:
            here = _HERE.search(line)
            if here:
                body = [line]
                while body[-1].strip() != here[1]:
                    body.append(next(lines))
                self._program("\n".join(body), place)
                continue
            command = bare(line)
            if not command or command in self._elsewhere:
                continue
            stops = _STOPS.search(line)
            self._line(self._instead.get(command, command), int(stops[1]) if stops else 0, place)

    def _line(self, command: str, code: int, place: str) -> None:
        steps: list[list[str]] = [[]]
        for word in words(command):
            if word == "&&":
                steps.append([])
            else:
                steps[-1].append(word)
        for step in steps:
            what = f"{place}: {' '.join(step)}"
            if step[0] == "cd":
                self.folder = (self.folder / step[1]).resolve()
                assert self.folder.is_dir(), f"{what}: no such folder"
            elif step[0] == "make":
                assert re.search(rf"^{re.escape(step[1])}:", (ROOT / "Makefile").read_text(), re.MULTILINE), what
            elif step[0] == "lodestream":
                self.lodestream(step[1:], code if step is steps[-1] else 0, what)
            else:
                self._program(command, place)
                break

    def lodestream(self, arguments: list[str], code: int, what: str) -> None:
        """Run a verb; its exit code must be `code`."""
        assert not is_endless(arguments), f"{what}: never ends; put it into the lists of test_blocks.py"
        stdin = None
        if "<" in arguments:
            at = arguments.index("<")
            stdin = (self.folder / arguments[at + 1]).read_text()
            arguments = arguments[:at] + arguments[at + 2 :]
        if arguments[0] == "chaos":  # it forks, which is only safe in a process of its own
            self._alone(arguments, code, what)
            return
        os.chdir(self.folder)
        result = CliRunner().invoke(app, arguments, input=stdin, prog_name="lodestream")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(f"{what}: {result.exception!r}") from result.exception
        assert result.exit_code == code, f"{what}: ended with {result.exit_code}\n{result.output}"
        self.said += result.output
        if arguments[0] == "init":
            self._make_smaller()

    def _alone(self, arguments: list[str], code: int, what: str) -> None:
        command = [sys.executable, "-m", "lodestream.cli", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert done.returncode == code, f"{what}: ended with {done.returncode}\n{done.stdout}"
        self.said += done.stdout

    def _make_smaller(self) -> None:
        """Fewer rows than the template makes; the page's commands mean the same."""
        for file in self.folder.rglob("tables/bronze/*.yaml"):
            file.write_text(re.sub(r"\brows: \d{4,}", f"rows: {ROWS}", file.read_text()))

    def _program(self, command: str, place: str) -> None:
        assert command.split()[0] in PROGRAMS, f"{place}: the test runs no {command.split()[0]!r}"
        first = command.split("\n")[0]
        assert not re.search(r"(^|\s)[~/]|\.\.", first), f"{place}: leaves the page's folder: {command}"
        done = subprocess.run(["sh", "-ec", command], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{place}: {command}: {done.stderr}"
        self.said += done.stdout
        before = time.time() - 60  # a file source waits until a file has rested
        for file in self.folder.rglob("*.jsonl"):
            os.utime(file, (before, before))


def is_endless(arguments: list[str]) -> bool:
    """Whether a command goes on until Ctrl-C, or takes minutes."""
    given = {*arguments}
    return bool(
        ("run" in given and given.isdisjoint(("--until-idle", "--once", "--help")))
        or ("tail" in given and given & {"-f", "--follow"})
        or arguments[0] in ("demo", "serve", "up", "postgres")
        or (arguments[0] == "registry" and given.isdisjoint(("--add-user", "--help")))
    )


def words(command: str) -> list[str]:
    """Words and operators of a command line, without its comment."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    return list(lexer)


def bare(line: str) -> str:
    """A command line without its comment and with single spaces."""
    quote = ""
    for at, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (at == 0 or line[at - 1].isspace()):
            line = line[:at]
            break
    return " ".join(line.split())
