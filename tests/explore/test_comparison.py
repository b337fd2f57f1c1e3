"""The comparison of two versions equals that of ``melmill diff``."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

from melmill.pipelines.explore.comparison import Comparison
from melmill.pipelines.snapshots.history import compare
from melmill.transforms.store.folders import Store
from tests import signals
from tests.explore.conftest import RATE, open_explorer
from tests.pipeline_runs import extract_here, refresh_here


def test_the_page_counts_and_lists_what_diff_does(tmp_path: Path) -> None:
    songs, dataset = tmp_path / "songs", tmp_path / "dataset"
    songs.mkdir()
    for number in range(4):
        signals.write_audio(songs / f"{number}.wav", signals.song(3.0, RATE, seed=number), RATE)
    extract_here(songs, dataset, "chunk.seconds=1")
    (songs / "0.wav").unlink()
    signals.write_audio(songs / "1.wav", signals.song(5.0, RATE, seed=9), RATE)
    (songs / "2.wav").write_bytes(b"no audio")
    signals.write_audio(songs / "4.wav", signals.song(3.0, RATE, seed=4), RATE)
    refresh_here(
        songs,
        dataset,
        "chunk.seconds=1",
        "limits.max_failure_ratio=0.9",
        "refresh.max_removed_ratio=0.9",
    )

    with closing(open_explorer(dataset, tmp_path)) as explorer:
        before, after = (line for line in (0, explorer.table.version))
        changes = list(compare(Store(str(dataset)), before, after))
        with closing(Comparison(explorer.table_of(before), explorer.table_of(after))) as drawn:
            counted = {kind: number for kind, number in drawn.counts.items() if number}
            assert counted == Counter(change.kind for change in changes)
            assert [(c.kind, c.uri) for c in drawn.page("", 0, 99)] == sorted(
                ((change.kind, change.uri) for change in changes), key=lambda pair: pair[1]
            )
            assert [Path(c.uri).name for c in drawn.page("removed", 0, 99)] == ["0.wav"]
            assert ("ok", "failed", 1) in drawn.statuses
