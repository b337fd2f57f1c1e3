"""Check that no test reads a folder that exists on one machine only."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
#: Paths to folders of one machine or of one user.
_OUTSIDE = re.compile(r"""["'](?:/work|/home|/root|/mnt|/srv|/Users|~)/""")
#: The test that contains this text sets HOME to its own folder.
_ALLOWED = {'names("~/songs")'}


def test_no_test_names_a_folder_of_one_machine() -> None:
    lines = {
        f"{path.relative_to(TESTS)}: {line.strip()}"
        for path in TESTS.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if _OUTSIDE.search(line) and not any(allowed in line for allowed in _ALLOWED)
    }
    assert lines == set()


def test_such_a_folder_is_found() -> None:
    for folder in ("work", "home"):
        assert _OUTSIDE.search(f'REAL = Path("/{folder}/shared")')
    assert not _OUTSIDE.search('Path("/tmp/x")')
