"""Tests of each error's exit status: 2 only if the user must change something first."""

from __future__ import annotations

import errno

import fsspec
import pytest
import typer

from melmill.pipelines.cli.exit_status import Exit, reporting_errors
from melmill.pipelines.run.errors import (
    LostWorkerError,
    NothingSubmittedError,
    RunnerError,
    TooManyFailuresError,
)
from melmill.transforms.catalogue.parts import open_catalogue
from melmill.transforms.core import errors
from melmill.transforms.core.errors import DatasetError, UnavailableError, UserError
from melmill.transforms.store import retries
from melmill.transforms.store.folders import Store

STATUS = {
    errors.ConfigError: Exit.USAGE,
    errors.CatalogueError: Exit.USAGE,
    errors.DatasetError: Exit.USAGE,
    RunnerError: Exit.USAGE,
    errors.ConflictError: Exit.CONFLICT,
    errors.UnavailableError: Exit.FAILED,
    TooManyFailuresError: Exit.FAILED,
    LostWorkerError: Exit.FAILED,
    NothingSubmittedError: Exit.SUCCESS,
}


@pytest.mark.parametrize("kind", STATUS, ids=lambda kind: kind.__name__)
def test_every_error_has_its_status(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as raised, reporting_errors():
        raise kind("what was wrong")
    assert raised.value.exit_code == STATUS[kind]
    assert "what was wrong" in "".join(capsys.readouterr())


def test_failures_that_cannot_pass_are_the_users_to_change() -> None:
    for may_pass, status in ((True, Exit.FAILED), (False, Exit.USAGE)):
        with pytest.raises(typer.Exit) as raised, reporting_errors():
            raise TooManyFailuresError("all failed", may_pass=may_pass)
        assert raised.value.exit_code == status


def test_no_kind_of_users_error_was_forgotten() -> None:
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    kinds = {kind for kind in classes if issubclass(kind, UserError)} - {UserError}
    assert kinds == {kind for kind in STATUS if kind.__module__ == errors.__name__}


def test_what_workers_wrote_is_shown_with_a_lost_worker(capsys: pytest.CaptureFixture[str]) -> None:
    error = LostWorkerError("a worker process ended with status 137")
    error.add_note("the last lines that workers wrote:\n  out of memory")
    with pytest.raises(typer.Exit), reporting_errors():
        raise error
    assert "  out of memory" in capsys.readouterr().err


@pytest.fixture
def store_errors(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Return a list for one error, which every request to the memory store then raises."""
    pending: list[Exception] = []
    memory = type(fsspec.filesystem("memory"))

    def fail(*arguments: object, **options: object) -> object:
        raise pending[0]

    for name in ("cat_file", "info", "ls"):
        monkeypatch.setattr(memory, name, fail)
    monkeypatch.setattr(retries.RETRYING, "sleep", lambda seconds: None)
    return pending


TRANSIENT_ERRORS = [ConnectionResetError(errno.ECONNRESET, "reset"), TimeoutError("too slow")]


@pytest.mark.parametrize("error", TRANSIENT_ERRORS, ids=lambda error: type(error).__name__)
def test_a_store_that_fails_for_a_moment_may_be_tried_again(
    store_errors: list[Exception], error: Exception
) -> None:
    store_errors.append(error)
    with pytest.raises(UnavailableError):
        Store("memory://a").read("b")
    with pytest.raises(UnavailableError):
        open_catalogue("memory://a")


def test_a_store_that_refuses_must_be_changed(store_errors: list[Exception]) -> None:
    store_errors.append(PermissionError(errno.EACCES, "no"))
    with pytest.raises(DatasetError) as raised:
        Store("memory://a").read("b")
    assert not isinstance(raised.value, UnavailableError)
