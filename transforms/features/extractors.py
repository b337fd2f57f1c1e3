"""All features of chunks: one pass over the same samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.feature_columns import Array
from melmill.transforms.features.chunks import ChunkSpec, Edges
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.features.mfcc import MfccExtractor, MfccSpec
from melmill.transforms.features.model import ModelExtractor
from melmill.transforms.features.model_files import options_for
from melmill.transforms.features.model_spec import ModelSpec
from melmill.transforms.features.pcen import PcenExtractor, PcenSpec
from melmill.transforms.features.rounding import round_to_resolution
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.stft import StftExtractor, extract_together
from melmill.transforms.features.stft_spec import StftSpec, framing_with_neighbours
from melmill.transforms.features.waveform import WaveformExtractor, WaveformSpec

if TYPE_CHECKING:
    from melmill.transforms.store.filesystems import StorageOptions

Samples = npt.NDArray[np.float32]

#: A chunk with the samples of the recording around it, and the number of those before it.
Window = tuple[Samples, int]

#: Function of samples [rows, samples], of the number of samples that are not padding in each, and
#: of their windows, for several features.
Extract = Callable[[Samples, Sequence[int], Sequence[Window]], list[Array]]


def extract_features(
    samples: Samples,
    filled_samples: Sequence[int],
    features: FeatureSpec,
    windows: Sequence[Window] = (),
) -> dict[str, Array]:
    """Return the features of chunks.

    Parameters
    ----------
    samples
        Samples of the chunks at the target rate, float32 [rows, samples].
    filled_samples
        Number of samples in each row that are not padding.
    features
        Features to compute.
    windows
        Each row with the samples around it, if the edges of the chunks are ``neighbours``.

    Returns
    -------
    dict
        Array [rows, ...] of each feature, by name; see :attr:`FeatureSpec.columns`.
    """
    arrays: dict[str, Array] = {}
    for group, extract in _groups(features):
        for feature, values in zip(group, extract(samples, filled_samples, windows), strict=True):
            if feature.has_logarithm:
                round_to_resolution(values, features.resolution)
            arrays[feature.name] = values
    return {feature.name: arrays[feature.name] for feature in features.features}


#: Models that this process has loaded, by their feature, sample rate and number of samples.
_models: dict[tuple[Feature, int, int], ModelExtractor] = {}


def load_models(features: FeatureSpec, catalogue: str = "", options: StorageOptions = ()) -> None:
    """Load the models of features, unless this process has loaded them.

    Parameters
    ----------
    features
        Features whose models are needed.
    catalogue, options
        URI of the catalogue, and options of fsspec for its recordings; see :func:`options_for`.

    Raises
    ------
    ConfigError
        A model cannot be used; see :class:`ModelExtractor`.
    """
    for at_rate in features.by_rate:
        rate_hz, length = at_rate.sample_rate_hz, at_rate.chunk.length
        for feature in at_rate.features:
            name, spec, key = feature.name, feature.spec, (feature, rate_hz, length)
            if isinstance(spec, ModelSpec) and key not in _models:
                own = options_for(spec.model, catalogue, options)
                _models[key] = ModelExtractor(name, spec, rate_hz, length, own)


@lru_cache(maxsize=32)
def _groups(features: FeatureSpec) -> list[tuple[list[Feature], Extract]]:
    """Return groups of features, each with a function; features with equal spectra are a group.

    The functions are made once per process and configuration.
    """
    groups: list[tuple[list[Feature], Extract]] = []
    of_stft: dict[tuple[StftSpec, int, Edges], list[tuple[Feature, StftExtractor]]] = {}
    for feature in features.features:
        if isinstance(feature.spec, StftSpec):
            extractor = _stft_extractor(feature.spec, features)
            of_stft.setdefault(extractor.transform, []).append((feature, extractor))
        else:
            groups.append(([feature], _extract_alone(feature, features)))
    for (spec, *_), members in of_stft.items():
        extractors = [extractor for _, extractor in members]
        group = [feature for feature, _ in members]
        groups.append((group, _extract_spectra(extractors, spec, features.chunk)))
    return groups


def _extract_alone(feature: Feature, features: FeatureSpec) -> Extract:
    """Return the function of a feature that has no spectrum."""
    spec, length = feature.spec, features.chunk.length
    if isinstance(spec, WaveformSpec):
        waveform = WaveformExtractor(spec, features.sample_rate_hz)
        return lambda samples, filled, windows: [waveform(samples, filled)]
    if isinstance(spec, ModelSpec):
        load_models(features)
        model = _models[feature, features.sample_rate_hz, length]
        return lambda samples, filled, windows: [model(samples, filled)]
    raise TypeError(f"{feature.name}: meters read measures, and no extractor does")


def _stft_extractor(spec: StftSpec, features: FeatureSpec) -> StftExtractor:
    length, edges = features.chunk.length, features.chunk.edges
    if not isinstance(spec, MelSpec):
        return StftExtractor(spec, length, edges)
    kinds = {MfccSpec: MfccExtractor, PcenSpec: PcenExtractor}
    kind: Any = kinds.get(type(spec), MelExtractor)
    extractor: StftExtractor = kind(spec, features.sample_rate_hz, length, edges)
    return extractor


def _extract_spectra(
    extractors: Sequence[StftExtractor], spec: StftSpec, chunk: ChunkSpec
) -> Extract:
    """Return the function of features with equal spectra."""
    if chunk.edges == "pad":
        return lambda samples, filled, windows: extract_together(extractors, samples, filled)
    return lambda samples, filled, windows: extract_together(
        extractors, np.stack([surrounded(window, spec, chunk.length) for window in windows])
    )


def surrounded(window: Window, spec: StftSpec, chunk_samples: int) -> Samples:
    """Return a chunk with as many samples around it as its frames need.

    Where the recording ends, it is padded as the spec says.
    """
    samples, before = window
    around = framing_with_neighbours(spec, chunk_samples)
    start, stop = before - around.before_samples, before + chunk_samples + around.after_samples
    missing = max(0, -start), max(0, stop - len(samples))
    return np.pad(samples[max(0, start) : stop], missing, mode=spec.pad_mode)
