"""All features of chunks: one pass over the same samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.features.mfcc import MfccExtractor, MfccSpec
from melmill.transforms.features.pcen import PcenExtractor, PcenSpec
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.stft import StftExtractor
from melmill.transforms.features.waveform import WaveformExtractor, WaveformSpec
from melmill.transforms.rows.schema import Array, round_to_resolution

Samples = npt.NDArray[np.float32]

#: Function of samples [rows, samples] and of the number of samples that are not padding in each.
Extractor = Callable[[Samples, Sequence[int]], Array]


def extract_features(
    samples: Samples, filled_samples: Sequence[int], features: FeatureSpec
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

    Returns
    -------
    dict
        Array [rows, ...] of each feature, by name; see :attr:`FeatureSpec.columns`.
    """
    arrays = {}
    for feature, extractor in zip(features.features, _extractors(features), strict=True):
        values = arrays[feature.name] = extractor(samples, filled_samples)
        if feature.has_logarithm:
            round_to_resolution(values, features.resolution)
    return arrays


@lru_cache(maxsize=4)
def _extractors(features: FeatureSpec) -> list[Extractor]:
    """Return the features' extractors; they are made once per process and configuration."""
    return [_extractor(feature, features) for feature in features.features]


def _extractor(feature: Feature, features: FeatureSpec) -> Extractor:
    spec, length = feature.spec, features.chunk.length
    if isinstance(spec, WaveformSpec):
        return WaveformExtractor(spec)
    extractor: StftExtractor
    if isinstance(spec, MelSpec):
        kinds = {MfccSpec: MfccExtractor, PcenSpec: PcenExtractor}
        kind: Any = kinds.get(type(spec), MelExtractor)
        extractor = kind(spec, features.sample_rate_hz, length)
    else:
        extractor = StftExtractor(spec, length)
    return lambda samples, filled: extractor(samples, valid_samples=filled)
