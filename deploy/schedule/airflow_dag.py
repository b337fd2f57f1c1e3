"""Refreshes a dataset every night, by Airflow 3: put this file in the DAGs' folder.

Set the constants first. melmill is in an environment of its own: its dependencies and Airflow's
need not agree. `OPERATOR` is ``bash`` for the plain command, or ``beam`` for the operator of
apache-airflow-providers-apache-beam, which runs the same command. See docs/scheduling.md.
"""

from __future__ import annotations

import re
import shlex
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

OPERATOR = "bash"
BIN = "/opt/melmill/bin"
CATALOGUE = "/srv/songs"
DATASET = "/var/lib/melmill/dataset"
#: Of the Beam operator. Never "DataflowRunner": see docs/scheduling.md.
RUNNER = "direct"
#: Beam's options, without the dashes: {"job_endpoint": "flink:8099", "parallelism": 8}.
BEAM_OPTIONS: dict[str, Any] = {}

#: Neither operator has the status but in what it says when it is not 0.
STATUS = re.compile(r"\bcode (\d+)")
PARTIAL, USAGE = 3, 2


class ByExitStatus(BaseOperator):
    """Takes partial (3) for a success, and does not repeat what no repetition helps (2)."""

    def execute(self, context: Any) -> Any:
        """Run, and see how it ended; failed (1) and conflict (4) are left to the retries."""
        try:
            return super().execute(context)
        except AirflowException as error:
            found = STATUS.search(str(error))
            status = int(found[1]) if found else None
            if status == USAGE:
                raise AirflowFailException("melmill: change something first, see above") from error
            if status != PARTIAL:
                raise
            self.log.warning("committed, but some recordings failed")


class RefreshByBash(ByExitStatus, BashOperator):
    """The command."""


def refresh_by_bash() -> BaseOperator:
    """Make the task of the plain command."""
    command = [f"{BIN}/melmill", "refresh", CATALOGUE, DATASET, "--quiet"]
    # "exec": Airflow's signal, when a task is cancelled, reaches melmill itself.
    return RefreshByBash(task_id="refresh", bash_command=f"exec {shlex.join(command)}")


def refresh_by_beam() -> BaseOperator:
    """Make the task of Beam's operator, which starts `python OPTIONS FILE --runner=... --...`."""
    from airflow.providers.apache.beam.operators.beam import BeamRunPythonPipelineOperator

    class RefreshByBeam(ByExitStatus, BeamRunPythonPipelineOperator):
        """The same command, with its runner and Beam's options as the operator has them."""

    return RefreshByBeam(
        task_id="refresh",
        py_interpreter=f"{BIN}/python",
        py_options=["-m", "melmill", "refresh", CATALOGUE, DATASET],
        # In the place of a file, since the module is named above and something has to be here.
        py_file="--quiet",
        runner=RUNNER,
        pipeline_options=dict(BEAM_OPTIONS),
    )


with DAG(
    "melmill_refresh",
    description="Bring a melmill dataset up to date with its catalogue",
    schedule="17 3 * * *",
    start_date=datetime(2025, 1, 1),
    # Nights that were missed are made up for by the next run; a run that is going on keeps the
    # next one waiting.
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
        # A run that hangs must not keep the next ones away.
        "execution_timeout": timedelta(hours=23),
    },
) as dag:
    {"bash": refresh_by_bash, "beam": refresh_by_beam}[OPERATOR]()
