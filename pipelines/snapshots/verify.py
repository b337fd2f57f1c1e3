"""Verification: recompute some rows of a dataset with the reference, and compare them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.pipelines.snapshots.sampled_rows import SampledRow, sample_rows
from melmill.pipelines.snapshots.verify_measures import reference_readings
from melmill.pipelines.variants import pin_sounds
from melmill.transforms.core.errors import TRANSIENT_CAUSES, Cause, RecordingError, UserError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.features.chunks import Place, filled_samples
from melmill.transforms.features.decoded_spans import place_at_rate
from melmill.transforms.features.mel_spec import unit_of
from melmill.transforms.features.model_spec import ModelSpec
from melmill.transforms.features.resample import drifts
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.stft_spec import StftSpec
from melmill.transforms.features.variants_spec import Codec
from melmill.transforms.features.waveform import WaveformSpec
from melmill.transforms.index.tables import RECORDINGS, read_index
from melmill.transforms.store.folders import Store
from melmill.transforms.store.objects import StoredObject

if TYPE_CHECKING:
    from melmill.pipelines.snapshots.verify_reference import Expected

#: The reference keeps a whole recording in memory: 1 GiB when decoded and mixed, which is an hour
#: and a half at 44.1 kHz.
MAX_SAMPLES = 1 << 28

StorageOptions = tuple[tuple[str, object], ...]


@dataclass(slots=True)
class FormatResult:
    """The differences between the dataset and the reference, for one format and feature.

    Attributes
    ----------
    unit
        The unit of the feature.
    rows, beyond
        The number of rows that were compared, and of rows that exceed the tolerance.
    largest, mean
        The largest and the mean absolute difference, in the unit of the feature.
    tolerance_share
        The largest ratio of a value's difference to its tolerance.
    """

    unit: str
    rows: int = 0
    beyond: int = 0
    largest: float = 0.0
    mean: float = 0.0
    tolerance_share: float = 0.0

    def add(self, difference: Any, share: float) -> None:
        """Add the differences of a row."""
        self.mean += (float(difference.mean()) - self.mean) / (self.rows + 1)
        self.rows += 1
        self.beyond += share > 1
        self.largest = max(self.largest, float(difference.max()))
        self.tolerance_share = max(self.tolerance_share, share)


@dataclass(slots=True)
class Verification:
    """The result of a verification.

    Attributes
    ----------
    version
        The snapshot's version.
    rows
        The number of rows that were compared.
    formats
        The results by ``container/codec``; if there are several features, also by feature.
    beyond
        The rows that exceed the tolerance: ``uri``, ``chunk_index``, ``channel``, ``feature``,
        ``largest``.
    skipped
        The numbers of rows, or of their values of a feature, that were not compared, by reason and
        then by URI.
    failed
        The numbers of rows whose source could not be used although it should exist, by reason and
        then by URI.
    """

    version: int
    rows: int = 0
    formats: dict[str, FormatResult] = field(default_factory=dict)
    beyond: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    failed: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def passed(self) -> bool:
        """Return whether rows were compared, all are within the tolerance, and none failed."""
        return self.rows > 0 and not self.beyond and not self.failed


def verify(
    store: Store,
    sample: int,
    seed: int,
    report: Callable[[int], None],
    catalogue_options: StorageOptions = (),
) -> Verification:
    """Recompute a random sample of a snapshot's rows from their recordings, and compare them.

    Parameters
    ----------
    store
        The dataset.
    sample
        The number of rows to draw uniformly; all rows if the dataset has fewer.
    seed
        The seed of the draw.
    report
        A function that is called with the number of finished rows.
    catalogue_options
        Options of fsspec for the recordings' store.

    Raises
    ------
    DatasetError
        There is no dataset, a shard is damaged, or another version of melmill made the rows.
    """
    opened = OpenSnapshot.current(store)
    opened.require_own_values()
    snapshot, features = opened.snapshot, _with_files(opened, catalogue_options)
    result = Verification(snapshot.version)
    rows = defaultdict(list)
    for row in sample_rows(store, snapshot, sample, seed):
        rows[row.recording_id].append(row)
    done = 0
    columns = [name for name in RECORDINGS.names if name != "measures"]  # they are large
    for entry in read_index(store, snapshot.index, "recordings", columns):
        if sampled := rows.pop(entry["recording_id"], None):
            source = StoredObject(entry["uri"], storage_options=catalogue_options)
            done += len(sampled)
            sampled = _without_lost(sampled, features, source.uri, result)
            for speed in sorted({features.speed_of(row.variant) for row in sampled}):
                own = [row for row in sampled if features.speed_of(row.variant) == speed]
                _verify_recording(own, entry, source, features, speed, result)
            report(done)
    for unmatched in rows.values():
        uri = unmatched[0].uri
        _add(result.failed, "the index does not hold the recording", uri, len(unmatched))
    return result


def _with_files(opened: OpenSnapshot, options: StorageOptions) -> FeatureSpec:
    """Return the features of a snapshot, with the files of variants that are as they were."""
    recipe, features = opened.recipe, opened.recipe.feature_spec()
    if not any(variant.lacks_files for variant in recipe.variants):
        return features
    catalogue = recipe.catalogue.model_copy(update={"storage_options": dict(options)})
    variants = []
    for variant in recipe.variants:
        update = {"catalogue": catalogue, "variants": (variant,)}
        try:
            pinned = pin_sounds(recipe.model_copy(update=update), opened.snapshot.catalogue)
        except UserError:
            variants.append(variant)
        else:
            is_same = pinned.variants[0].canonical() == variant.canonical()
            variants.append(pinned.variants[0] if is_same else variant)
    return replace(features, variants=tuple(variants))


def _without_lost(
    rows: list[SampledRow], features: FeatureSpec, uri: str, result: Verification
) -> list[SampledRow]:
    """Return the rows without those of variants that cannot be computed by a reference."""
    lost = {}
    for number, variant in enumerate(features.variants, 1):
        if variant.lacks_files:
            lost[number] = f"the files of variant {number} are gone or have changed"
        elif any(isinstance(word, Codec) for word in variant.words):
            lost[number] = f"variant {number} has passed a codec, which has no other reference"
    for number, reason in lost.items():
        if own := sum(row.variant == number for row in rows):
            _add(result.skipped, reason, uri, own)
    return [row for row in rows if row.variant not in lost]


def _verify_recording(
    rows: list[SampledRow],
    entry: Mapping[str, Any],
    source: StoredObject,
    features: FeatureSpec,
    speed: Fraction,
    result: Verification,
) -> None:
    from melmill.pipelines.snapshots.verify_reference import (  # imports librosa
        reference_row,
        reference_samples,
        reference_variant,
    )

    audio = AudioInfo(
        *(entry[name] for name in ("container", "codec", "decoder")),
        *(entry[name] for name in ("sample_rate_hz", "channels", "frames")),
    )
    if reason := _reason_to_skip(audio, entry["fingerprint"], source, features):
        _add(result.skipped, reason, source.uri, len(rows))
        return
    compared = False
    for at_rate in features.by_rate:
        kinds = [f for f in at_rate.features if not isinstance(f.spec, ModelSpec)]
        for feature in at_rate.features:
            if feature not in kinds:
                reason = f"{feature.name} is the output of a model, which has no other reference"
                _add(result.skipped, reason, source.uri, len(rows))
        if not kinds:
            continue
        rate_hz = audio.sample_rate_hz * speed
        if drifts(rate_hz.numerator, at_rate.sample_rate_hz * rate_hz.denominator):
            rates = f"from {float(rate_hz):g} to {at_rate.sample_rate_hz} Hz"
            reason = f"{rates} soxr's position drifts: librosa's result differs"
            _add(result.skipped, reason, source.uri, len(rows))
            continue
        try:
            samples = reference_samples(source, audio, at_rate, speed)
        except RecordingError as error:
            _add_unreadable(error, source.uri, len(rows), result)
            break
        compared = True
        for row, feature in product(rows, kinds):
            total = samples.shape[1]
            place = place_at_rate(_place(row, features), features, at_rate, total, row.variant)
            where = place.start, place.valid, place.index
            what: tuple[FeatureSpec, int | Fraction] = at_rate, rate_hz
            channel = samples[row.channel]
            if row.variant:
                channel = reference_variant(channel, place, features, at_rate, row)
                if features.variants[row.variant - 1].changes_chunks:
                    what = at_rate, 0  # its files were resampled, too
            expected = reference_row(channel, *where, *what, feature, place.filled)
            _compare(row, expected, feature, audio, result)
    else:
        compared |= _verify_measures(rows, audio, source, features, result)
    result.rows += len(rows) if compared else 0


def _verify_measures(
    rows: list[SampledRow],
    audio: AudioInfo,
    source: StoredObject,
    features: FeatureSpec,
    result: Verification,
) -> bool:
    """Compare the measures of rows of a recording; return whether there were any.

    Rows of variants have none.
    """
    rows = [row for row in rows if not row.variant]
    places = [_place(row, features) for row in rows]
    for name, spec in features.measured.items():
        try:
            readings = reference_readings(source, audio, features, places, name)
        except RecordingError as error:
            _add_unreadable(error, source.uri, len(rows), result)
            return False
        for row, expected in zip(rows, readings, strict=True):
            stored = np.array([row.features[column] for column in spec.columns(name)])
            both_null = np.isnan(stored) & np.isnan(expected)
            difference = np.where(both_null, 0, np.abs(stored - expected))
            exact = np.zeros(len(expected))
            _record(row, difference, exact, name, "", audio, result)
    return bool(features.measured and rows)


def _place(row: SampledRow, features: FeatureSpec) -> Place:
    """Return the place of a row's chunk at the rate of all rows."""
    filled = filled_samples(row.chunk_index, row.valid_samples, features.chunk)
    return Place(row.chunk_index, row.start_sample, row.valid_samples, filled)


def _add_unreadable(error: RecordingError, uri: str, rows: int, result: Verification) -> None:
    # The fingerprint matches, so the rows were made from this file: an error that is not
    # temporary means that the dataset or this version of melmill is wrong.
    outcome = result.skipped if error.cause in TRANSIENT_CAUSES else result.failed
    _add(outcome, f"the source cannot be read: {error.message}", uri, rows)


def _add(outcome: dict[str, dict[str, int]], reason: str, uri: str, rows: int) -> None:
    """Count rows by reason and URI; several segments have the same URI."""
    outcome[reason][uri] = outcome[reason].get(uri, 0) + rows


def _compare(
    row: SampledRow, expected: Expected, feature: Feature, audio: AudioInfo, result: Verification
) -> None:
    difference = np.abs(row.features[feature.name] - expected.values)
    unit = _unit_of(feature)
    _record(row, difference, expected.tolerance, feature.name, unit, audio, result)


def _record(
    row: SampledRow,
    difference: npt.NDArray[Any],
    tolerance: npt.NDArray[Any],
    feature: str,
    unit: str,
    audio: AudioInfo,
    result: Verification,
) -> None:
    difference = np.nan_to_num(difference, nan=np.inf)
    share = float((difference / np.maximum(tolerance, 1e-30)).max())
    name = f"{audio.container}/{audio.codec}"
    if len(row.features) > 1:
        name = f"{name} {feature}"
    result.formats.setdefault(name, FormatResult(unit)).add(difference, share)
    if not share <= 1:  # NaN, too
        place = {"chunk_index": row.chunk_index, "channel": row.channel}
        values = {"feature": feature, "largest": float(difference.max())}
        result.beyond.append({"uri": row.uri, **place, **values})


def _unit_of(feature: Feature) -> str:
    if isinstance(feature.spec, WaveformSpec):
        return "of 32768" if feature.spec.dtype == "int16" else "of full scale"
    if feature.kind in ("mfcc", "pcen") or not isinstance(feature.spec, StftSpec):
        return ""
    return unit_of(feature.spec)


def _reason_to_skip(
    audio: AudioInfo, fingerprint: str, source: StoredObject, features: FeatureSpec
) -> str:
    if audio.frames * (audio.channels if features.channels == "each" else 1) > MAX_SAMPLES:
        return f"longer than {MAX_SAMPLES:,} samples, too large for the reference's memory"
    try:
        _, current = source.stat()
    except RecordingError as error:
        if error.cause is Cause.NOT_FOUND:
            return "the source is gone"
        return f"the source cannot be read: {error.message}"
    return "" if current == fingerprint else "the source has changed since it was extracted"
