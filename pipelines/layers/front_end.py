"""What a layer knows of a recipe's log-mel feature: constant arrays and settings."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from melmill.pipelines.config import Config
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.features.framing import PadMode
from melmill.transforms.features.logarithm import LogSpec
from melmill.transforms.features.mel_spec import MelSpec, filterbank, mel_shape
from melmill.transforms.features.standardization import StandardizationSpec
from melmill.transforms.features.stft_spec import framing, win_length
from melmill.transforms.features.windows import place_window, window_samples


@dataclass(frozen=True, slots=True, eq=False)
class FrontEnd:
    """The constants of a log-mel feature.

    Attributes
    ----------
    spec
        Settings of the feature.
    sample_rate_hz, chunk_samples
        Sample rate and length of the chunks.
    shape
        Shape of a chunk's feature: bands and frames.
    places
        Number of each frame's samples in the chunk, int32 [frames, frame_samples], before frames
        are stacked; `chunk_samples` stands for a zero.
    window
        Window, float32 [frame_samples].
    weights
        Filterbank, float32 [bins, bands].
    frames_of
        Number of frames that a recording of each length has without padding, int32
        [chunk_samples + 1]; empty if no frame depends on it.
    """

    spec: MelSpec
    sample_rate_hz: int
    chunk_samples: int
    shape: tuple[int, int]
    places: npt.NDArray[np.int32]
    window: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    frames_of: npt.NDArray[np.int32]


def read_front_end(recipe: Config, feature: str | None = None) -> FrontEnd:
    """Return the front end of a recipe's feature.

    Parameters
    ----------
    recipe
        Recipe.
    feature
        Name of the feature; ``None`` for the only log-mel feature.

    Raises
    ------
    ConfigError
        The recipe has no such feature, or several, or a chunk alone does not decide its feature.
    """
    features = recipe.feature_spec()
    # MFCC and PCEN have settings of their own kinds, which are no plain MelSpec.
    mels = {f.name: f.spec for f in features.features if isinstance(f.spec, MelSpec)}
    log_mels = {name: spec for name, spec in mels.items() if type(spec) is MelSpec}
    listed = ", ".join(log_mels) or "none"
    if feature is None and len(log_mels) == 1:
        (feature,) = log_mels
    if feature not in log_mels:
        given = f"{feature!r} is none"
        if feature is None:
            given = "there are several" if log_mels else "there is none"
        raise ConfigError(f"feature: name a log-mel feature of the recipe ({listed}); {given}")
    if features.chunk.edges == "neighbours":
        raise ConfigError(
            "chunk.edges: neighbours: a layer sees one chunk without its neighbours; use a recipe "
            "with chunk.edges=pad"
        )
    own_rate_hz = features.by_column[feature].sample_rate_hz or features.sample_rate_hz
    length = features.at_rate(own_rate_hz).chunk.length
    return make_front_end(log_mels[feature], own_rate_hz, length)


def make_front_end(spec: MelSpec, sample_rate_hz: int, chunk_samples: int) -> FrontEnd:
    """Return the front end of valid settings."""
    window = window_samples(spec.window, win_length(spec), periodic=spec.periodic)
    lengths = range(chunk_samples + 1 if spec.padded_frames is not None else 0)
    frames_of = [max(0, framing(spec, length).n_frames) for length in lengths]
    return FrontEnd(
        spec,
        sample_rate_hz,
        chunk_samples,
        mel_shape(spec, chunk_samples),
        _places(spec, chunk_samples),
        place_window(window, spec.n_fft, spec.window_position),
        filterbank(spec, sample_rate_hz).astype(np.float32).T.copy(),
        np.array(frames_of, np.int32),
    )


def _places(spec: MelSpec, chunk_samples: int) -> npt.NDArray[np.int32]:
    around = framing(spec, chunk_samples)
    numbers = np.arange(chunk_samples, dtype=np.int32)
    padding = (around.before_samples, around.after_samples)
    mode: PadMode = spec.pad_mode
    if mode == "constant":
        padded = np.pad(numbers, padding, constant_values=chunk_samples)
    else:
        padded = np.pad(numbers, padding, mode=mode)
    frames = np.lib.stride_tricks.sliding_window_view(padded, around.frame_samples)
    return frames[:: around.hop_samples][: around.n_frames].copy()


def constants(front_end: FrontEnd) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of a front end by name."""
    names = ("places", "window", "weights", "frames_of")
    return {name: getattr(front_end, name) for name in names}


def front_end_json(front_end: FrontEnd) -> str:
    """Return the settings of a front end as JSON, from which it can be made again."""
    settings = {
        "mel": asdict(front_end.spec),
        "sample_rate_hz": front_end.sample_rate_hz,
        "chunk_samples": front_end.chunk_samples,
    }
    return json.dumps(settings, sort_keys=True)


def front_end_from_json(text: str) -> FrontEnd:
    """Return the front end with the settings of :func:`front_end_json`."""
    settings = json.loads(text)
    mel = settings.pop("mel")
    mel["log"] = LogSpec(**mel["log"])
    if mel["standardization"] is not None:
        mel["standardization"] = StandardizationSpec(**mel["standardization"])
    return make_front_end(MelSpec(**mel), **settings)
