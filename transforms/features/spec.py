"""The settings of the features, as one value with a stable digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from fractions import Fraction
from itertools import chain
from typing import Any, TypeAlias

from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.features.channels import ChannelPolicy
from melmill.transforms.features.chunks import ChunkSpec, Surroundings
from melmill.transforms.features.logarithm import ADDED
from melmill.transforms.features.measures_spec import MeasuresSpec
from melmill.transforms.features.mel_spec import MelSpec, mel_shape
from melmill.transforms.features.mfcc import MfccSpec
from melmill.transforms.features.model_spec import ModelSpec
from melmill.transforms.features.pcen import PcenSpec
from melmill.transforms.features.resample import Quality
from melmill.transforms.features.stft_spec import (
    StftSpec,
    framing_with_neighbours,
    stft_shape,
)
from melmill.transforms.features.variants_spec import VariantSpec
from melmill.transforms.features.waveform import WaveformSpec

#: Increase this number when the same configuration starts to give different rows.
EXTRACTOR_VERSION = 3
#: Versions whose features have the same bits, although their rows have other columns. A refresh
#: carries the features over from one to another.
_SAME_FEATURES = {2, 3}

#: Settings of a feature of any kind.
KindSpec: TypeAlias = StftSpec | WaveformSpec | ModelSpec | MeasuresSpec

#: Name of each kind of feature in a recipe.
KINDS: dict[str, type[KindSpec]] = {
    "measures": MeasuresSpec,
    "mel": MelSpec,
    "mfcc": MfccSpec,
    "model": ModelSpec,
    "pcen": PcenSpec,
    "stft": StftSpec,
    "waveform": WaveformSpec,
}


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of the rows.

    Attributes
    ----------
    name
        Name of its column.
    spec
        Settings; their type is the kind of the feature.
    sample_rate_hz
        Sample rate that the feature is computed at; ``None`` for the rate of all rows, and for
        measures, which are read at the recording's own rate.
    """

    name: str
    spec: KindSpec
    sample_rate_hz: int | None = None

    @property
    def has_logarithm(self) -> bool:
        """Whether the values are logarithms, and may be rounded to the recipe's resolution."""
        rounded = self.kind in ("mel", "stft")
        return rounded and isinstance(self.spec, StftSpec) and self.spec.log.kind != "none"

    @property
    def kind(self) -> str:
        """Name of the kind in a recipe."""
        return next(name for name, kind in KINDS.items() if kind is type(self.spec))


#: The features of a recipe that names none.
DEFAULT_FEATURES = (Feature("mel", MelSpec()),)


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """All settings that a row's values depend on.

    Attributes
    ----------
    sample_rate_hz
        Target rate: recordings are converted to it. Places of chunks are counted in it.
    channels
        Policy that decides which channels become rows.
    resampler
        soxr's quality setting, by librosa's name.
    chunk
        Settings for cutting a recording.
    features
        Features of a chunk, in the order of their columns.
    resolution
        Step to which logarithmic values are rounded, in the unit of the log; ``None`` keeps
        float32.
    variants
        Variants of each recording, which have rows of their own. The first has the number 1; 0 is
        the recording as it is.
    """

    sample_rate_hz: int = 22_050
    channels: ChannelPolicy = "mono"
    resampler: Quality = "soxr_hq"
    chunk: ChunkSpec = field(default_factory=lambda: ChunkSpec(66_150, 66_150))
    features: tuple[Feature, ...] = DEFAULT_FEATURES
    resolution: float | None = None
    variants: tuple[VariantSpec, ...] = field(default=(), metadata=ADDED)

    def speed_of(self, variant: int) -> Fraction:
        """Return the speed at which a variant of a recording is played, by its number."""
        return self.variants[variant - 1].speed if variant else Fraction(1)

    @property
    def by_rate(self) -> tuple[FeatureSpec, ...]:
        """The settings for each sample rate with its features; the rate of all rows comes first."""
        rates = map(self._rate_of, self.features)
        return tuple(self.at_rate(rate) for rate in dict.fromkeys([self.sample_rate_hz, *rates]))

    def _rate_of(self, feature: Feature) -> int:
        return feature.sample_rate_hz or self.sample_rate_hz

    def without(self, names: Collection[str]) -> FeatureSpec:
        """Return the settings without some features."""
        return replace(self, features=tuple(f for f in self.features if f.name not in names))

    def at_rate(self, rate_hz: int) -> FeatureSpec:
        """Return the settings for a sample rate, with the features that are computed at it.

        A chunk has the same time at each rate, rounded to samples. Measures belong to no rate, and
        variants to all rates.
        """
        computed = (f for f in self.features if not isinstance(f.spec, MeasuresSpec))
        own = [feature for feature in computed if self._rate_of(feature) == rate_hz]
        length, hop = (
            max(1, round(Fraction(samples * rate_hz, self.sample_rate_hz)))
            for samples in (self.chunk.length, self.chunk.hop)
        )
        return replace(
            self,
            sample_rate_hz=rate_hz,
            chunk=replace(self.chunk, length=length, hop=hop),
            features=tuple(replace(feature, sample_rate_hz=None) for feature in own),
            variants=(),
        )

    @property
    def batch_rows(self) -> int:
        """Largest number of rows in a call of a model; 1 without models."""
        models = [f.spec for f in self.features if isinstance(f.spec, ModelSpec)]
        return max((model.batch_rows for model in models), default=1)

    @property
    def surroundings(self) -> Surroundings:
        """Numbers of samples around a chunk that its features need from its neighbours.

        The settings are those for a single rate.
        """
        if self.chunk.edges == "pad":
            return Surroundings()
        specs = [f.spec for f in self.features if isinstance(f.spec, StftSpec)]
        places = [framing_with_neighbours(spec, self.chunk.length) for spec in specs]
        before = max((place.before_samples for place in places), default=0)
        return Surroundings(before, max((place.after_samples for place in places), default=0))

    @property
    def measured(self) -> dict[str, MeasuresSpec]:
        """Measures of chunks, by the name of their feature."""
        return {f.name: f.spec for f in self.features if isinstance(f.spec, MeasuresSpec)}

    @property
    def columns(self) -> tuple[FeatureColumn, ...]:
        """Columns of the features: one for each, and for measures as many as there are."""
        at_rates = {spec.sample_rate_hz: spec for spec in self.by_rate}
        base_hz = self.sample_rate_hz
        columns = (_columns(f, at_rates[self._rate_of(f)], base_hz) for f in self.features)
        return tuple(chain.from_iterable(columns))

    @property
    def by_column(self) -> dict[str, Feature]:
        """Features by the names of their columns, in the order of the columns."""
        return {name: feature for feature in self.features for name in column_names(feature)}

    def columns_of(self, names: Collection[str]) -> tuple[str, ...]:
        """Return the names of the columns of some features."""
        return tuple(name for name, feature in self.by_column.items() if feature.name in names)

    def canonical(self) -> str:
        """Return the canonical JSON, which the digest is computed from and the shards contain."""
        body = {"extractor_version": EXTRACTOR_VERSION, **_settings(self)}
        if self.has_only_mel:
            # The JSON of recipes from before there were other features.
            del body["features"]
            body["mel"] = _settings(self.features[0].spec)
        else:
            body["features"] = [
                {
                    "name": feature.name,
                    "kind": feature.kind,
                    **_settings(feature.spec),
                    **({"sample_rate_hz": rate} if (rate := feature.sample_rate_hz) else {}),
                }
                for feature in self.features
            ]
        if self.variants:
            body["variants"] = [variant.canonical() for variant in self.variants]
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    @property
    def has_only_mel(self) -> bool:
        """Whether the only feature is a log-mel spectrogram with the name ``mel``."""
        features = [(f.name, f.kind, f.sample_rate_hz) for f in self.features]
        return features == [("mel", "mel", None)]

    def unchanged_since(self, canonical: str) -> tuple[str, ...]:
        """Return the names of the features that rows of other settings hold, too.

        `canonical` are the other settings; see :meth:`canonical`. Rows of another version of the
        extractor may hold the same features, too. The variants do not matter here; see
        :meth:`unchanged_variants`.
        """
        (known, before), (wanted, after) = map(_comparable, (canonical, self.canonical()))
        for settings in (before, after):
            settings.pop("variants", None)
        if before != after:
            return ()
        return tuple(name for name, entry in wanted.items() if known.get(name) == entry)

    def unchanged_variants(self, canonical: str) -> tuple[int, ...]:
        """Return the numbers of the variants that rows of other settings hold, too; always 0."""
        known = json.loads(canonical).get("variants", [])
        own = json.loads(self.canonical()).get("variants", [])
        pairs = enumerate(zip(known, own, strict=False), 1)
        return 0, *(number for number, (before, after) in pairs if before == after)

    def computes_same(self, canonical: str) -> bool:
        """Return whether rows of other settings hold the same features, and no others.

        The rows may have other columns beside the features; see :meth:`unchanged_since`.
        """
        (known, before), (wanted, after) = map(_comparable, (canonical, self.canonical()))
        return before == after and list(known.items()) == list(wanted.items())

    def digest(self) -> str:
        """Return 128 bits of BLAKE2b over the canonical JSON, in hexadecimal."""
        return hashlib.blake2b(self.canonical().encode(), digest_size=16).hexdigest()


def _comparable(canonical: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the features of canonical settings by name, and the other settings.

    Versions of the extractor that compute the same features are one version.
    """
    settings = json.loads(canonical)
    if settings["extractor_version"] in _SAME_FEATURES:
        settings["extractor_version"] = max(_SAME_FEATURES)
    return _pop_features(settings), settings


def _pop_features(settings: dict[str, Any]) -> dict[str, Any]:
    """Remove the features from parsed canonical settings, and return them by name."""
    if "mel" in settings:
        return {"mel": {"name": "mel", "kind": "mel", **settings.pop("mel")}}
    return {feature["name"]: feature for feature in settings.pop("features")}


def column_names(feature: Feature) -> tuple[str, ...]:
    """Return the names of a feature's columns.

    >>> column_names(Feature("quality", MeasuresSpec(("level.rms", "clipping.share"))))
    ('quality_level_rms', 'quality_clipping_share')
    """
    if isinstance(feature.spec, MeasuresSpec):
        return tuple(feature.spec.columns(feature.name))
    return (feature.name,)


def valid_column(feature: Feature, *, is_base: bool) -> str:
    """Return the name of the column that counts what is not padding in a row of a feature.

    The name depends on the feature alone, so that it stays when other features come or go.

    Parameters
    ----------
    feature
        Feature of the rows.
    is_base
        Whether the feature has the sample rate of all rows.

    Returns
    -------
    str
        ``valid_frames`` for frames of ``mel``, ``NAME_valid_frames`` for other frames,
        ``valid_samples`` for a waveform, ``NAME_valid_samples`` for one at another rate. ``""`` for
        measures and models, whose axes have no known time.
    """
    if isinstance(feature.spec, StftSpec):
        return "valid_frames" if feature.name == "mel" else f"{feature.name}_valid_frames"
    if isinstance(feature.spec, WaveformSpec):
        return "valid_samples" if is_base else f"{feature.name}_valid_samples"
    return ""


def _columns(feature: Feature, at_rate: FeatureSpec, base_rate_hz: int) -> Iterator[FeatureColumn]:
    if isinstance(feature.spec, MeasuresSpec):
        yield from (FeatureColumn(name, ()) for name in column_names(feature))
    else:
        valid = valid_column(feature, is_base=at_rate.sample_rate_hz == base_rate_hz)
        yield replace(_column(feature.name, feature.spec, at_rate), valid=valid)


def _column(
    name: str, spec: StftSpec | WaveformSpec | ModelSpec, at_rate: FeatureSpec
) -> FeatureColumn:
    chunk = at_rate.chunk
    if isinstance(spec, WaveformSpec):
        flac_rate_hz = at_rate.sample_rate_hz if spec.encoding == "flac" else 0
        return FeatureColumn(name, (chunk.length,), spec.dtype, flac_rate_hz)
    if isinstance(spec, ModelSpec):
        return FeatureColumn(name, spec.shape, spec.dtype)
    if isinstance(spec, MelSpec):
        bands, frames = mel_shape(spec, chunk.length)
        stacked = spec.stack_frames
    else:
        (bands, frames), stacked = stft_shape(spec, chunk.length), 1
    if chunk.edges == "neighbours":
        frames = framing_with_neighbours(spec, chunk.length).n_frames // stacked
    return FeatureColumn(name, (getattr(spec, "n_mfcc", bands), frames))


def _settings(spec: Any) -> Any:
    """Return the settings that features depend on, as plain values.

    Settings that were added to a kind are left out where they have their default.
    """
    if not is_dataclass(spec):
        return spec
    values = ((known, getattr(spec, known.name)) for known in fields(spec))
    return {
        known.name: _settings(value)
        for known, value in values
        if not (known.metadata.get("added") and value == known.default)
        and not known.metadata.get("place")
    }
