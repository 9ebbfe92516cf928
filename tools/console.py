"""Build the console from `web/` into the package, with a manifest that says what it was built from."""

import argparse
import fcntl
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WEB = ROOT / "web"
STATIC = ROOT / "src" / "lodestream" / "console" / "static"
MANIFEST = "manifest.json"
TYPES = WEB / "src" / "api" / "schema.ts"
LICENCES = "licences.md"
PARTS = Path(".vite", "manifest.json")
SOURCES = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "src")
_NPM_TIMEOUT_S = 600


def source_digest(web: Path = WEB) -> str:
    """One digest of all that the bundle is built from; tests of the sources do not count."""
    digest = hashlib.sha256()
    for name in SOURCES:
        start = web / name
        files = [start] if start.is_file() else sorted(path for path in start.rglob("*") if path.is_file())
        for path in files:
            if path.name.endswith(".test.ts"):
                continue
            content = path.read_bytes()
            digest.update(f"{path.relative_to(web).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def packed(path: Path) -> int:
    """How many bytes a browser loads for a file."""
    return len(gzip.compress(path.read_bytes(), 9, mtime=0))


def loads(parts: dict[str, dict[str, Any]], entry: str) -> set[str]:
    """The files that a browser loads for a part of the program, as Vite's manifest says."""
    part = parts[entry]
    found = {part["file"], *part.get("css", ()), *part.get("assets", ())}
    return found.union(*(loads(parts, one) for one in part.get("imports", ())))


def manifest(static: Path, sources: str, parts: dict[str, dict[str, Any]]) -> dict[str, object]:
    """What was built: the digest of the sources, the files of each screen, and each file with its sizes and digest."""
    first = loads(parts, "index.html") | {"index.html"}
    screens = {Path(name).stem: loads(parts, name) | first for name in parts if name.startswith("src/screens/")}
    files = {
        path.relative_to(static).as_posix(): {
            "bytes": path.stat().st_size,
            "gzip": packed(path),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(static.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    return {
        "sources": sources,
        "first": sorted(first),
        "screens": {name: sorted(found) for name, found in sorted(screens.items())},
        "files": files,
    }


def missing() -> str | None:
    """Why the console cannot be built here; None when it can."""
    for program, least in (("node", (20, 19)), ("npm", (11,))):
        if shutil.which(program) is None:
            return f"{program} is not installed"
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60).stdout
        version = tuple(int(part) for part in said.strip().lstrip("v").split(".")[: len(least)])
        if version < least:
            return f"{program} {'.'.join(map(str, least))} is needed, this is {said.strip()}"
    return None


def install(web: Path = WEB) -> None:
    """What package-lock.json names, into node_modules; nothing when it is there. Processes take turns."""
    stamp = web / "node_modules" / ".lock.sha256"
    with (web / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = hashlib.sha256(lock.read()).hexdigest()
        if not stamp.exists() or stamp.read_text() != wanted:
            npm(["ci", "--no-audit", "--no-fund", "--ignore-scripts"], web)
            stamp.write_text(wanted)


def npm(arguments: list[str], web: Path = WEB) -> None:
    """Run npm in `web`. Raises CalledProcessError with what it said."""
    done = subprocess.run(["npm", *arguments], cwd=web, capture_output=True, text=True, timeout=_NPM_TIMEOUT_S)
    if done.returncode != 0:
        raise SystemExit(f"npm {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def build(target: Path = STATIC, web: Path = WEB) -> None:
    """Check the types, build into `target`, and write the manifest there."""
    install(web)
    npm(["run", "--silent", "check"], web)
    npm(["exec", "--", "vite", "build", "--outDir", str(target.resolve()), "--emptyOutDir"], web)
    parts = json.loads((target / PARTS).read_text(encoding="utf-8"))
    shutil.rmtree((target / PARTS).parent)
    text = json.dumps(manifest(target, source_digest(web), parts), indent=1)
    (target / MANIFEST).write_text(text + "\n", encoding="utf-8")


def document() -> str:
    """The OpenAPI document of a server, as whoever holds the lake is told it, without what is for others' clients."""
    from lodestream.apis import openapi
    from lodestream.apis.routing import endpoints
    from lodestream.app import open_project
    from lodestream.model.access import Principal

    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder, "tables", "bronze")
        tables.mkdir(parents=True)
        Path(folder, "lodestream.yaml").write_text("project: types\nlake: lake\n", encoding="utf-8")
        text = "source: {files: {path: events}}\nformat: json\ncolumns: {id: string}\n"
        (tables / "events.yaml").write_text(text, encoding="utf-8")
        app = open_project(folder)
        table = endpoints(app.http(app.serving(), "dev_types"))
        ours = [one for one in table if not one.path.startswith("/delta-sharing")]
        return json.dumps(openapi.document(ours, Principal("dev", "owner"), "http://127.0.0.1", "types"))


def types(target: Path = TYPES) -> None:
    """The types of what the server answers, made from its OpenAPI document."""
    install()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "openapi.json")
        source.write_text(document(), encoding="utf-8")
        npm(["exec", "--", "openapi-typescript", str(source), "-o", str(target.resolve())])


def main() -> None:
    """Build, or say that what is there is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="end with 1 when the sources have changed since the build")
    parser.add_argument("--types", action="store_true", help="make the types of the server's answers anew first")
    given = parser.parse_args()
    if given.check:
        known = json.loads((STATIC / MANIFEST).read_text(encoding="utf-8"))["sources"]
        sys.exit(None if known == source_digest() else "the console is older than web/: run make console")
    if reason := missing():
        sys.exit(f"the console needs Node.js 20.19 and npm 11: {reason}")
    if given.types:
        types()
    build()
    print(f"built {STATIC.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
