"""Refresh a dataset every night with Airflow 3: put this file in the DAGs' folder.

Set the constants first. Install melmill in its own environment, so that its dependencies cannot
conflict with Airflow's. `OPERATOR` is ``bash`` for the plain command, or ``beam`` for the operator
of apache-airflow-providers-apache-beam, which runs the same command. See docs/scheduling.md.
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
#: Runner of the Beam operator. Never use "DataflowRunner": see docs/scheduling.md.
RUNNER = "direct"
#: Beam's options without the dashes, for example {"job_endpoint": "flink:8099", "parallelism": 8}.
BEAM_OPTIONS: dict[str, Any] = {}

#: Both operators report a status other than 0 only in the text of their error.
STATUS = re.compile(r"\bcode (\d+)")
PARTIAL, USAGE = 3, 2


class ByExitStatus(BaseOperator):
    """Treat exit status 3 (partial) as a success, and do not retry after exit status 2 (usage)."""

    def execute(self, context: Any) -> Any:
        """Run the task and check its exit status; Airflow retries 1 (failed) and 4 (conflict)."""
        try:
            return super().execute(context)
        except AirflowException as error:
            match = STATUS.search(str(error))
            status = int(match[1]) if match else None
            if status == USAGE:
                raise AirflowFailException("melmill: change something first, see above") from error
            if status != PARTIAL:
                raise
            self.log.warning("committed, but some recordings failed")


class RefreshByBash(ByExitStatus, BashOperator):
    """The plain command."""


def refresh_by_bash() -> BaseOperator:
    """Return the task for the plain command."""
    command = [f"{BIN}/melmill", "refresh", CATALOGUE, DATASET, "--quiet"]
    # With "exec", Airflow's signal to a cancelled task reaches melmill itself.
    return RefreshByBash(task_id="refresh", bash_command=f"exec {shlex.join(command)}")


def refresh_by_beam() -> BaseOperator:
    """Return the task for Beam's operator, which runs `python OPTIONS FILE --runner=... --...`."""
    from airflow.providers.apache.beam.operators.beam import BeamRunPythonPipelineOperator

    class RefreshByBeam(ByExitStatus, BeamRunPythonPipelineOperator):
        """The same command, with the runner and options that the operator passes."""

    return RefreshByBeam(
        task_id="refresh",
        py_interpreter=f"{BIN}/python",
        py_options=["-m", "melmill", "refresh", CATALOGUE, DATASET],
        # The operator needs a file here. The module is named above, so this option takes its place.
        py_file="--quiet",
        runner=RUNNER,
        pipeline_options=dict(BEAM_OPTIONS),
    )


with DAG(
    "melmill_refresh",
    description="Bring a melmill dataset up to date with its catalogue",
    schedule="17 3 * * *",
    start_date=datetime(2025, 1, 1),
    # The next run also does the work of missed nights. A run waits until the last run has ended.
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
        # A run that hangs must not block the next runs.
        "execution_timeout": timedelta(hours=23),
    },
) as dag:
    {"bash": refresh_by_bash, "beam": refresh_by_beam}[OPERATOR]()
