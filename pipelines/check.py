"""Checks: recordings are measured and compared with the limits of a profile.

Recordings are measured in decoder processes, several at a time. The results come in the order of
the catalogues, and only a few recordings are ahead of the next result.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

from melmill.pipelines.config import LimitsConfig
from melmill.pipelines.profiles import Finding, Profile, judge
from melmill.transforms.catalogue.parts import (
    Catalogue,
    catalogue_parts,
    list_part,
    nothing_found_message,
    open_catalogue,
)
from melmill.transforms.core.errors import CatalogueError, RecordingError, Stage, UnavailableError
from melmill.transforms.core.naming import join_uri
from melmill.transforms.core.records import AudioInfo, Recording
from melmill.transforms.decode.lending import borrow_decoder, close_idle_decoders, return_decoder
from melmill.transforms.measures.measuring import measure_recording
from melmill.transforms.measures.meters import Quality, Reading
from melmill.transforms.measures.registry import (
    MEASURES,
    METERS,
    QUALITIES,
    meters_of,
)
from melmill.transforms.plan.recordings import segment_bounds
from melmill.transforms.store.filesystems import StorageOptions
from melmill.transforms.store.folders import Store, absolute_uri
from melmill.transforms.store.objects import StoredObject
from melmill.transforms.store.ownership import MARKER

T = TypeVar("T")
U = TypeVar("U")

#: Number of recordings that are ahead of the next result, for each worker: results come in order,
#: so all workers would wait for a long recording if there were few.
_AHEAD = 16
#: Number of a table's first entries that are checked before anything is measured.
_CHECKED_ENTRIES = 2_048


@dataclass(frozen=True, slots=True)
class CheckedRecording:
    """A recording with its verdict.

    Attributes
    ----------
    name
        URI as the user wrote it: relative for a relative catalogue.
    uri
        Absolute URI.
    audio
        Header; ``None`` if the recording cannot be read.
    findings
        Reasons why the recording fails; none if it passes.
    readings
        Readings by the measure's name.
    recording_id
        Id in a dataset; ``""`` for a file that is not from a dataset.
    start_seconds, end_seconds
        Start and end of a segment; ``None`` for those of the file.
    """

    name: str
    uri: str
    audio: AudioInfo | None = None
    findings: tuple[Finding, ...] = ()
    readings: Mapping[str, Reading] = field(default_factory=dict)
    recording_id: str = ""
    start_seconds: float | None = None
    end_seconds: float | None = None

    @property
    def passes(self) -> bool:
        """Whether the recording keeps all rules."""
        return not self.findings

    @property
    def seconds(self) -> float | None:
        """Duration; ``None`` if the recording cannot be read."""
        if self.audio is None:
            return None
        seconds = self.audio.frames / self.audio.sample_rate_hz
        end = seconds if self.end_seconds is None else min(self.end_seconds, seconds)
        return end - (self.start_seconds or 0.0)


@dataclass(frozen=True, slots=True)
class NamedCatalogue:
    """An opened catalogue, and its name as the user wrote it."""

    name: str
    catalogue: Catalogue


def open_catalogues(
    names: Sequence[str], storage_options: StorageOptions = ()
) -> list[NamedCatalogue]:
    """Open catalogues, and check their first entries.

    Parameters
    ----------
    names
        Paths or URLs of audio files, directories, globs or tables.
    storage_options
        Options of their stores.

    Raises
    ------
    CatalogueError
        A catalogue cannot be opened or is empty; the message names all of them.
    """
    if not names:
        raise CatalogueError("no audio: give audio files, directories, globs or tables")
    opened, faults = [], []
    for name in names:
        try:
            catalogue = open_catalogue(name, storage_options=storage_options)
            entries = _CHECKED_ENTRIES if catalogue.kind == "table" else 1
            if not list(islice(_list_all(catalogue), entries)):
                raise CatalogueError(nothing_found_message(catalogue))
            opened.append(NamedCatalogue(name, catalogue))
        except UnavailableError:
            raise
        except CatalogueError as error:
            faults.append(str(error))
    if faults:
        raise CatalogueError("\n".join(faults))
    return opened


def find_dataset(name: str, storage_options: StorageOptions = ()) -> Store | None:
    """Return the store of a dataset of melmill; ``None`` if the name is not that of a dataset."""
    has_extension = bool(PurePosixPath(name).suffix)
    if "://" not in name:
        is_dataset = Path(name, MARKER).is_file()
    else:
        is_dataset = not has_extension and Store(name, storage_options).size(MARKER) is not None
    return Store(absolute_uri(name), storage_options) if is_dataset else None


def check_recordings(
    catalogues: Sequence[NamedCatalogue],
    profile: Profile,
    *,
    quality: Quality = "off",
    workers: int = 0,
    passed_over: Counter[str] | None = None,
) -> Generator[CheckedRecording, None, None]:
    """Check all recordings of catalogues, and yield the results in their order.

    Parameters
    ----------
    catalogues
        Result of :func:`open_catalogues`.
    profile
        Limits.
    quality
        Measures to read in addition to those of the profile.
    workers
        Number of processes; 0 for one per core.
    passed_over
        Counter of skipped files; see :func:`~melmill.transforms.catalogue.listing.list_files`.

    Raises
    ------
    CatalogueError
        A catalogue cannot be listed to its end.
    """
    listed = (
        (named, recording)
        for named in catalogues
        for recording in _list_all(named.catalogue, passed_over)
    )
    check = partial(
        _check, profile, meters=_meters(profile, quality), measures=measured(profile, quality)
    )
    return in_order(check, listed, workers or os.cpu_count() or 1)


def measured(profile: Profile, quality: Quality) -> tuple[str, ...]:
    """Return the names of the measures whose readings a result has.

    Parameters
    ----------
    profile
        Limits.
    quality
        Measures to read in addition; ``off`` for those of the profile only.
    """
    if quality == "off":
        return profile.measures
    meters = {*_meters(profile, quality)}
    return tuple(name for name in MEASURES if not meters.isdisjoint(meters_of([name])))


def _list_all(catalogue: Catalogue, passed_over: Counter[str] | None = None) -> Iterator[Recording]:
    for part in catalogue_parts(catalogue):
        yield from list_part(catalogue, part, passed_over)


def in_order(
    function: Callable[[T], U], items: Iterable[T], workers: int
) -> Generator[U, None, None]:
    """Yield the result of each item in the order of the items; call the function in threads."""
    pending: deque[Future[U]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            while pending and (len(pending) >= _AHEAD * workers or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Do not wait: after Control-C, the process ends, and the decoder processes with it.
        pool.shutdown(wait=False, cancel_futures=True)
        close_idle_decoders()


def _check(
    profile: Profile,
    listed: tuple[NamedCatalogue, Recording],
    *,
    meters: Sequence[str],
    measures: Sequence[str],
) -> CheckedRecording:
    named, recording = listed
    name, start = _name_of(named, recording), recording.start_seconds
    checked = CheckedRecording(
        name, recording.uri, start_seconds=start, end_seconds=recording.end_seconds
    )
    try:
        audio, readings = _measure(named.catalogue, recording, meters)
    except RecordingError as error:
        return replace(checked, findings=(Finding(error.message, cause=error.cause),))
    # A person listens to the file, so its seconds are counted from the file's start.
    findings = tuple(_later(finding, start or 0.0) for finding in judge(readings, profile))
    shown = {measure: readings[measure] for measure in measures}
    return replace(checked, audio=audio, findings=findings, readings=shown)


def _later(finding: Finding, seconds: float) -> Finding:
    return finding if finding.second is None else replace(finding, second=finding.second + seconds)


def _meters(profile: Profile, quality: Quality) -> tuple[str, ...]:
    wanted = {*meters_of(profile.measures), *QUALITIES[quality]}
    return tuple(meter for meter in METERS if meter in wanted)


def _measure(
    catalogue: Catalogue, recording: Recording, meters: Sequence[str]
) -> tuple[AudioInfo, dict[str, Reading]]:
    if recording.fault is not None:
        raise RecordingError(Stage.LIST, *recording.fault)
    options = catalogue.storage_options
    version = recording.fingerprint, recording.place
    source = StoredObject(recording.uri, recording.size_bytes, options, *version)
    if source.local_path is None and not source.fingerprint:
        # Remote objects are read in ranges, for which their sizes must be known.
        source = source.located().in_its_version()
    limits = LimitsConfig().spec()
    decoder = borrow_decoder(limits.memory_bytes)
    try:
        part = partial(segment_bounds, recording) if recording.is_segment else None
        return decoder.call(limits.timeout_s, measure_recording, source, meters, part)
    except RuntimeError as error:  # an error in the program
        error.add_note(f"the recording was {recording.uri}")
        raise
    finally:
        return_decoder(limits.memory_bytes, decoder)


def _name_of(named: NamedCatalogue, recording: Recording) -> str:
    """Return a recording's URI: relative to the current folder if its catalogue's name is."""
    root, segment = named.catalogue.root, _segment_text(recording)
    is_below = recording.uri == join_uri(root, recording.relative_uri)
    if not is_below or "://" in named.name or os.path.isabs(named.name):  # noqa: PTH117
        return recording.uri + segment
    return os.path.normpath(join_uri(os.path.relpath(root), recording.relative_uri)) + segment


def _segment_text(recording: Recording) -> str:
    """Return text about a recording's segment; ``""`` for a whole file."""
    if not recording.is_segment:
        return ""
    start, end = recording.start_seconds, recording.end_seconds
    return f" from {start or 0:g} s" + ("" if end is None else f" to {end:g} s")
