"""Import Beam without its cloud packages; run as a program, the module is a local worker."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import traceback

_POLL_SECONDS = 0.5

#: Optional packages that Beam imports for transforms that melmill does not use.
_UNUSED = (
    "apache_beam.io.gcp.bigquery",
    "apitools",
    "azure",
    "boto3",
    "google.api_core",
    "google.auth",
    "pandas",
)


def import_beam() -> None:
    """Import Beam without its optional packages; do nothing if it is already imported.

    With these packages, the import takes three times as long. The stores can still import them
    later.
    """
    if "apache_beam" in sys.modules:
        return
    hidden = [name for name in _UNUSED if name not in sys.modules]
    # Python treats a module that is None in sys.modules as not installed.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        importlib.import_module("apache_beam")
    finally:
        for name in hidden:
            del sys.modules[name]


def end_with(launcher: int) -> None:
    """Exit this process when the launcher has ended, so that this process has another parent."""
    while os.getppid() == launcher:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    # Without this thread, a worker would wait a minute for a launcher that has just ended.
    threading.Thread(target=end_with, args=(int(sys.argv[1]),), daemon=True).start()
    import_beam()
    from apache_beam.runners.worker.sdk_worker_main import main

    # Python's own exit can abort while threads of gRPC run: the launcher would see a lost worker.
    try:
        main(sys.argv)
    except BaseException:  # noqa: BLE001 - printed, as Python would
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
