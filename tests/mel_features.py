"""Feature configurations with one log-mel feature, changed in one respect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.features.spec import Feature, FeatureSpec


def mel_features(mel: MelSpec, **settings: Any) -> FeatureSpec:
    """Return a configuration whose only feature is ``mel``."""
    return FeatureSpec(features=(Feature("mel", mel),), **settings)


def mel_of(features: FeatureSpec) -> MelSpec:
    """Return the settings of the only feature."""
    (feature,) = features.features
    assert isinstance(feature.spec, MelSpec)
    return feature.spec


def with_mel(features: FeatureSpec, **changes: Any) -> FeatureSpec:
    """Return a configuration with other settings of the only feature."""
    return replace(features, features=(Feature("mel", replace(mel_of(features), **changes)),))
