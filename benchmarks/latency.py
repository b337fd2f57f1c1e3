"""Measures the cost of a distant store: an extraction with and without 20 ms per response.

    python benchmarks/latency.py FOLDER [--latency-ms 20] [--rounds 3] [--copies 1]

The folder of audio is uploaded to a MinIO server on this machine (``scripts/object-stores
install``) behind a proxy that delays each response. One worker runs, so that the server and
the proxy have a core for themselves.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from measure import audio_files, describe_machine, interleave, median, melmill, print_table, run

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.object_stores.gateway import process_to
from tests.e2e.object_stores.servers import Place, installed, serving


def upload(place: Place, folder: Path, copies: int) -> None:
    """Upload the audio to a new bucket, `copies` times each file."""
    filesystem = place.filesystem()
    filesystem.mkdir(place.bucket)
    for path in audio_files(folder):
        for copy in range(copies):
            filesystem.put_file(str(path), f"{place.bucket}/songs/{copy}/{path.name}")


def extract_s(place: Place, output: Path) -> float:
    """Return the wall time of an extraction from the store to this machine's disk."""
    os.environ.update(place.environment)
    with tempfile.TemporaryDirectory(dir=output) as folder:
        command = melmill("extract", f"{place.root}/songs", f"{folder}/out", "--workers", "1")
        return run([*command, "--quiet"]).wall_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of audio")
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    programs = installed()
    if programs is None:
        sys.exit("the servers are not installed; run: scripts/object-stores install")
    print(describe_machine(), flush=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = Place("s3", stack.enter_context(serving("s3", programs, scratch / "s3")), "bench")
        upload(server, arguments.folder, arguments.copies)
        waits = {"no latency": 0.0, f"{arguments.latency_ms:g} ms": arguments.latency_ms / 1000}
        places = {
            name: server.through(stack.enter_context(process_to(server.endpoint, wait)))
            for name, wait in waits.items()
        }
        timed = {name: (lambda at=place: extract_s(at, scratch)) for name, place in places.items()}
        measured = interleave(arguments.rounds, timed)
    base = median(measured["no latency"])
    rows = [
        (name, f"{median(walls):.1f}", f"{base / median(walls):.2f}")
        for name, walls in measured.items()
    ]
    print_table(("store", "wall s", "speed relative to no latency"), rows)


if __name__ == "__main__":
    main()
