"""Imports Beam without the parts for clouds; run as a program, it is a worker on this machine."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time

_LOOKING_SECONDS = 0.5

#: Packages that Beam imports where they are installed, for transforms that melmill does not use.
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
    """Import Beam as it is without its optional packages; nothing if it is imported already.

    With them, importing takes three times as long. They stay importable for the stores.
    """
    if "apache_beam" in sys.modules:
        return
    hidden = [name for name in _UNUSED if name not in sys.modules]
    # Python takes None for a module that is not installed.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        importlib.import_module("apache_beam")
    finally:
        for name in hidden:
            del sys.modules[name]


def end_with(launcher: int) -> None:
    """End this process when its parent is another than the launcher, which has ended then."""
    while os.getppid() == launcher:
        time.sleep(_LOOKING_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    # One that was begun while its launcher ended would wait a minute for it.
    threading.Thread(target=end_with, args=(int(sys.argv[1]),), daemon=True).start()
    import_beam()
    from apache_beam.runners.worker.sdk_worker_main import main

    main(sys.argv)
