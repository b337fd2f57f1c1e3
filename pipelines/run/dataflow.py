"""What Dataflow needs to be told, found out before a job is submitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from melmill.transforms.core.errors import ConfigError

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_NEEDED = {
    "project": "--project=PROJECT",
    "region": "--region=REGION",
    "temp_location": "--temp_location=gs://BUCKET/FOLDER",
}


def settle_dataflow(options: Any, flags: Sequence[str]) -> None:
    """See that everything is there that a job needs: options, credentials, Google's libraries.

    Parameters
    ----------
    options
        Beam's; the region may be added from the environment, as Beam finds it.
    flags
        What the user said, as on the command line.

    Raises
    ------
    ConfigError
        Something is missing; all that is missing is named.
    """
    from apache_beam.options.pipeline_options import GoogleCloudOptions, TestOptions

    try:
        from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
        from google.cloud import dataflow  # noqa: F401 - without it the runner fails late
    except ImportError as missing:
        raise ConfigError(
            f"--runner dataflow: {missing}; pip install 'melmill[dataflow]'"
        ) from missing
    cloud = options.view_as(GoogleCloudOptions)
    if cloud.region is None:
        cloud.region = DataflowRunner().get_default_gcp_region()
    if missing_options := [text for name, text in _NEEDED.items() if not getattr(cloud, name)]:
        # Without a place for temporary files Beam would make a bucket in the project.
        raise ConfigError(f"--runner dataflow: {', '.join(missing_options)}: missing")
    if not options.view_as(TestOptions).dry_run:
        _require_credentials()
    if errors := list(_beams_complaints(options, DataflowRunner())):
        raise ConfigError(f"--runner dataflow: {' '.join(errors)}")


def _require_credentials() -> None:
    # Beam asks four times, for twenty seconds, and goes on without.
    import google.auth
    import google.auth.exceptions

    try:
        google.auth.default(scopes=_SCOPES)
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise ConfigError(
            "--runner dataflow: no credentials for Google Cloud were found; run: "
            "gcloud auth application-default login, or name a service account's key in "
            "GOOGLE_APPLICATION_CREDENTIALS"
        ) from error


def _beams_complaints(options: Any, runner: Any) -> Iterator[str]:
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

    for error in PipelineOptionsValidator(options, runner).validate():
        yield " ".join(str(error).split())
