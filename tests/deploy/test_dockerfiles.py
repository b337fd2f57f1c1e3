"""Tests of the Dockerfiles, without Docker: what they copy, install and start."""

from __future__ import annotations

import ast
import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.dockerfiles import LAUNCHER, ROOT, TEMPLATE, WORKER, Dockerfile
from tests.e2e.runners.bare import make_bare_environment

FILES = pytest.mark.parametrize(
    "path", [LAUNCHER, WORKER, TEMPLATE], ids=lambda path: str(path.relative_to(ROOT / "deploy"))
)
#: Every instruction of Docker's reference.
INSTRUCTIONS = {
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
    *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}


def patterns(name: str) -> list[str]:
    lines = (ROOT / name).read_text().splitlines()
    return [line.rstrip("/") for line in lines if line and not line.startswith("#")]


def is_ignored(path: str) -> bool:
    """Return whether .dockerignore excludes a file or a folder of the build context."""
    parts = Path(path).parts
    prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return any(
        fnmatch.fnmatch(f"/{prefix}", f"*/{pattern[3:]}" if pattern[:3] == "**/" else f"/{pattern}")
        for prefix in prefixes
        for pattern in patterns(".dockerignore")
    )


def extras_of_setup() -> set[str]:
    tree = ast.parse((ROOT / "setup.py").read_text())
    (extras,) = (
        keyword.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "extras_require"
    )
    assert isinstance(extras, ast.Dict)
    return {key.value for key in extras.keys if isinstance(key, ast.Constant)}


@FILES
def test_every_instruction_exists(path: Path) -> None:
    dockerfile = Dockerfile.read(path)
    assert dockerfile.instructions[0][0] == "FROM"
    assert {word for word, _ in dockerfile.instructions} <= INSTRUCTIONS


@FILES
def test_what_an_image_copies_is_in_the_build_context(path: Path) -> None:
    sources = [source for sources, _ in Dockerfile.read(path).copies for source in sources]
    assert len(sources) >= 8
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source


@FILES
def test_an_image_installs_extras_that_exist(path: Path) -> None:
    (requirement,) = (r for r in Dockerfile.read(path).requirements if r.startswith("/opt/melmill"))
    extras = set(requirement.partition("[")[2].rstrip("]").split(","))
    assert extras
    assert extras <= extras_of_setup()


def test_the_build_context_lacks_what_git_ignores() -> None:
    ignored = {pattern.removeprefix("**/") for pattern in patterns(".dockerignore")}
    assert ignored == {*patterns(".gitignore"), ".git"}
    assert is_ignored("pipelines/cli/__pycache__/app.pyc")
    assert is_ignored(".git/HEAD")
    assert not is_ignored("pipelines/cli/app.py")


def test_the_launcher_has_the_workers_python_and_beam() -> None:
    launcher, worker = Dockerfile.read(LAUNCHER), Dockerfile.read(WORKER)
    (parts,) = re.findall(r"^apache/beam_python(3\.\d+)_sdk:([\d.]+)$", worker.last("FROM"))
    python, beam = parts
    assert launcher.last("FROM") == f"python:{python}-slim"
    assert f"apache-beam=={beam}" in launcher.requirements


def test_the_launcher_runs_melmill_as_a_user_without_rights() -> None:
    launcher = Dockerfile.read(LAUNCHER)
    words = [word for word, _ in launcher.instructions]
    assert launcher.entrypoint == ["melmill"]
    # By number, so that Kubernetes can see that it is not root.
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", launcher.last("USER"))
    assert "RUN" not in words[words.index("USER") :]
    # The user has no home; the folder of the working directory must be writable.
    assert launcher.environment["HOME"] == "/tmp"
    # Without it, getpass.getuser(), which Beam calls for Dataflow, fails for such a user.
    assert launcher.environment["LOGNAME"] == "melmill"
    assert f"chmod 1777 {launcher.last('WORKDIR')}" in launcher.all("RUN")


def test_the_heads_build_images_of_this_version() -> None:
    from melmill import __version__ as version

    for path in (LAUNCHER, WORKER):
        name = f"melmill-{path.stem}:{version}"
        command = f"docker build -f {path.relative_to(ROOT)} -t {name} ."
        assert command in path.read_text()


@pytest.mark.slow
@FILES
def test_what_an_image_copies_is_enough_to_install_and_start(path: Path, tmp_path: Path) -> None:
    """Copy what the file copies, install it as pip does there, and start the command."""
    dockerfile, root = Dockerfile.read(path), tmp_path / "root"
    for sources, target in dockerfile.copies:
        for source in sources:
            put(ROOT / source, root / target.lstrip("/"), into=target.endswith("/"))
    python = make_bare_environment(tmp_path / "environment")
    (requirement,) = (r for r in dockerfile.requirements if r.startswith("/opt/melmill"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, f"{root}{requirement}"], check=True)
    assert output_of(python.parent / "melmill", "--version").startswith("melmill ")
    folder = output_of(python, "-c", "import melmill.configs; print(*melmill.configs.__path__)")
    assert (Path(folder.strip()) / "librosa.yaml").exists()


def output_of(*command: Path | str) -> str:
    """Run a command outside of this checkout, and return what it prints."""
    completed = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(command[0]).parent
    )
    return completed.stdout


def put(source: Path, target: Path, into: bool) -> None:
    """Copy as COPY does: a file into a folder; a folder's content, with links as links."""
    if source.is_dir():
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, symlinks=True, ignore=unwanted)
        return
    target.mkdir(parents=True, exist_ok=True) if into else target.parent.mkdir(parents=True)
    shutil.copy(source, target)
