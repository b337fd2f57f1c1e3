"""Checks for Dataflow that run before a job is submitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from melmill.transforms.core.errors import ConfigError

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_REQUIRED = {
    "project": "--project=PROJECT",
    "region": "--region=REGION",
    "temp_location": "--temp_location=gs://BUCKET/FOLDER",
}


def settle_dataflow(options: Any, flags: Sequence[str]) -> None:
    """Check what a job needs: options, credentials and Google's libraries.

    Parameters
    ----------
    options
        The options of Beam; the region is set from the environment if it is missing.
    flags
        The user's options, as on the command line.

    Raises
    ------
    ConfigError
        A library, options or credentials are missing; the message lists all missing options.
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
    if missing_options := [text for name, text in _REQUIRED.items() if not getattr(cloud, name)]:
        # Without temp_location, Beam would create a bucket in the project.
        raise ConfigError(f"--runner dataflow: {', '.join(missing_options)}: missing")
    if not options.view_as(TestOptions).dry_run:
        _require_credentials()
    if errors := list(_beam_errors(options, DataflowRunner())):
        raise ConfigError(f"--runner dataflow: {' '.join(errors)}")


def _require_credentials() -> None:
    # Beam would try four times, for twenty seconds, and then continue without credentials.
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


def _beam_errors(options: Any, runner: Any) -> Iterator[str]:
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

    for error in PipelineOptionsValidator(options, runner).validate():
        yield " ".join(str(error).split())
