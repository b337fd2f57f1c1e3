"""Beam's Prism runner, the real program, makes the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.comparing import assert_same_dataset
from tests.e2e.runners.flink import ROOT, RUN_SECONDS, has_namespaces, printed_json
from tests.e2e.songs import Songs

RECIPE = ROOT / "configs/runners/prism.yaml"
#: Prism listens on every interface, so it runs in a network that has only loopback.
ISOLATED = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--net"]
ISOLATED += ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def test_prism_makes_the_same_bytes(
    beam_programs: Path, songs: Songs, dataset: Path, tmp_path: Path
) -> None:
    arguments = [*songs.command(tmp_path / "dataset"), "--runner-config", str(RECIPE), "--json"]
    result = subprocess.run(
        [*(ISOLATED if has_namespaces() else []), sys.executable, "-m", "melmill", *arguments],
        env={**os.environ, "PATH": f"{beam_programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )
    summary = printed_json(result)
    assert_same_dataset(tmp_path / "dataset", dataset)
    local = json.loads((dataset.parent / "summary.json").read_text())
    assert summary["metrics"]["counters"] == local["metrics"]["counters"]
