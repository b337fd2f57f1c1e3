"""All features of chunks: one pass over the same samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.feature_columns import Array
from melmill.transforms.features.measures_spec import MeasuresSpec
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.features.mfcc import MfccExtractor, MfccSpec
from melmill.transforms.features.model import ModelExtractor
from melmill.transforms.features.model_files import options_for
from melmill.transforms.features.model_spec import ModelSpec
from melmill.transforms.features.pcen import PcenExtractor, PcenSpec
from melmill.transforms.features.rounding import round_to_resolution
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.stft import StftExtractor
from melmill.transforms.features.stft_spec import StftSpec, framing_with_neighbours
from melmill.transforms.features.waveform import WaveformExtractor, WaveformSpec

if TYPE_CHECKING:
    from melmill.transforms.store.filesystems import StorageOptions

Samples = npt.NDArray[np.float32]

#: A chunk with the samples of the recording around it, and the number of those before it.
Window = tuple[Samples, int]

#: Function of samples [rows, samples], of the number of samples that are not padding in each, and
#: of their windows.
Extractor = Callable[[Samples, Sequence[int], Sequence[Window]], Array]


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
    arrays = {}
    for feature, extractor in zip(features.features, _extractors(features), strict=True):
        values = arrays[feature.name] = extractor(samples, filled_samples, windows)
        if feature.has_logarithm:
            round_to_resolution(values, features.resolution)
    return arrays


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
def _extractors(features: FeatureSpec) -> list[Extractor]:
    """Return the features' extractors; they are made once per process and configuration."""
    return [_extractor(feature, features) for feature in features.features]


def _extractor(feature: Feature, features: FeatureSpec) -> Extractor:
    spec, length, edges = feature.spec, features.chunk.length, features.chunk.edges
    if isinstance(spec, MeasuresSpec):
        raise TypeError(f"{feature.name}: meters read measures, and no extractor does")
    if isinstance(spec, WaveformSpec):
        waveform = WaveformExtractor(spec, features.sample_rate_hz)
        return lambda samples, filled, windows: waveform(samples, filled)
    if isinstance(spec, ModelSpec):
        load_models(features)
        model = _models[feature, features.sample_rate_hz, length]
        return lambda samples, filled, windows: model(samples, filled)
    extractor: StftExtractor
    if isinstance(spec, MelSpec):
        kinds = {MfccSpec: MfccExtractor, PcenSpec: PcenExtractor}
        kind: Any = kinds.get(type(spec), MelExtractor)
        extractor = kind(spec, features.sample_rate_hz, length, edges)
    else:
        extractor = StftExtractor(spec, length, edges)
    if edges == "pad":
        return lambda samples, filled, windows: extractor(samples, valid_samples=filled)
    return lambda samples, filled, windows: extractor(
        np.stack([surrounded(window, spec, length) for window in windows])
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
