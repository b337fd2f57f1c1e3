"""A recording in a notebook, as the pipeline stores it: play it, plot it, compute its features.

    import melmill

    song = melmill.load("song.mp3")
    song.play()
    song.plot()
    song.features()                # float32 [rows, n_mels, frames], as in the dataset
    song.measures()                # level, clipping, loudness and more, by name

The module runs the same code as the workers, so samples and features are bit-identical to those
in a dataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melmill.pipelines.config import Config, load_config
from melmill.pipelines.models import pin_models
from melmill.transforms.core.errors import ConfigError, RecordingError
from melmill.transforms.core.feature_columns import Array
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.features.channels import check_channels, count_channels
from melmill.transforms.features.chunks import (
    Place,
    count_chunks,
    cut_chunks,
    place_chunk,
    resampled_length,
)
from melmill.transforms.features.decoded_spans import PlacedChunk, place_at_rate, read_samples
from melmill.transforms.features.spans import extract_chunks
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.measures.chunk_meters import measure_chunks
from melmill.transforms.measures.measuring import measure_recording
from melmill.transforms.measures.meters import Quality, Reading
from melmill.transforms.measures.registry import QUALITIES
from melmill.transforms.store.objects import StoredObject

Samples = npt.NDArray[np.float32]

MISSING = "{name} is not installed: pip install 'melmill[notebook]'"


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """A recording at the target sample rate.

    Attributes
    ----------
    uri
        The path or URL of the recording.
    samples : float32 [samples, channels]
        The samples; full scale is 1. There is one channel for ``mono``, ``left`` and ``right``,
        and the recording's own number of channels for ``each``. A chunk has one row per channel.
    features_spec
        The feature configuration that the recording was read for.
    at_rates : dict of int to float32 [samples, channels]
        The samples at the other sample rates of its features.
    """

    uri: str
    samples: Samples = field(repr=False)
    features_spec: FeatureSpec = field(repr=False)
    at_rates: dict[int, Samples] = field(default_factory=dict, repr=False, kw_only=True)

    @property
    def sample_rate_hz(self) -> int:
        """Return the target sample rate."""
        return self.features_spec.sample_rate_hz

    @property
    def seconds(self) -> float:
        """Return the duration."""
        return len(self.samples) / self.sample_rate_hz

    @property
    def start_second(self) -> float:
        """Return the place in the recording at which the samples start."""
        return 0.0

    @property
    def title(self) -> str:
        """Return the title of a picture."""
        return Path(self.uri).name

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks that a dataset has of this recording, in order."""
        spec, length = self.features_spec, len(self.samples)
        numbers = range(count_chunks(length, spec.chunk))
        places = [place_chunk(index, length, spec.chunk) for index in numbers]
        cut = []
        for at_rate in spec.by_rate:
            samples = self.at_rates.get(at_rate.sample_rate_hz, self.samples)
            at = [place_at_rate(place, spec, at_rate, len(samples)) for place in places]
            cut.append(cut_chunks(iter([samples]), at, at_rate.chunk))
        for placed in zip(*cut, strict=True):
            place, window = placed[0]
            chunk = window[place.around.before :][: spec.chunk.length]
            yield Chunk(self.uri, chunk, spec, place.index, place.start, place.valid, placed)

    def features(self, name: str | None = None) -> Array:
        """Return a feature that a dataset has of this recording.

        Parameters
        ----------
        name
            The name of the feature's column; ``None`` for the first of the recipe. The columns of
            ``kind: measures`` are numbers, which are read from the file again.

        Returns
        -------
        array [rows, ...]
            A row for each chunk, or for each channel of each chunk: float32 [rows, n_mels, frames]
            for ``mel``, in the unit of ``mel.log.kind``; float32 [rows] for a measure, with NaN
            where it is null. A recording that is too short gives no rows.

        Raises
        ------
        ConfigError
            The recipe has no such feature.
        RecordingError
            The recording is measured, and cannot be read again.
        """
        columns = {column.name: column for column in self.features_spec.columns}
        if name is not None and name not in columns:
            raise ConfigError(f"no feature {name!r}; the recipe has: {', '.join(columns)}")
        column = columns[name] if name else next(iter(columns.values()))
        chunks = list(self.chunks())
        if not chunks:
            return np.empty((0, *column.shape), column.dtype)
        if column.is_number:
            return self._measured(chunks)[column.name]
        for number, at_rate in enumerate(self.features_spec.by_rate):
            if column.name in [feature.name for feature in at_rate.features]:
                placed = [chunk.placed[number] for chunk in chunks]
                _, arrays = extract_chunks(placed, at_rate)
        return arrays[column.name]

    def _measured(self, chunks: Sequence[Chunk]) -> dict[str, Samples]:
        """Return the measures of chunks by column, at the recording's own sample rate."""
        source = StoredObject(self.uri)
        places = [
            Place(chunk.index, chunk.start_sample, chunk.valid_samples, chunk.filled_samples)
            for chunk in chunks
        ]
        rows = len(chunks) * self.samples.shape[1]
        return measure_chunks(source, probe_audio(source), self.features_spec, places, rows)

    def measures(self, quality: Quality = "full") -> dict[str, Reading]:
        """Return the readings of the whole recording, at its own sample rate, by measure.

        Parameters
        ----------
        quality
            ``basic``, or ``full`` for all measures.

        Raises
        ------
        RecordingError
            The recording cannot be read.
        """
        _, readings = measure_recording(StoredObject(self.uri), QUALITIES[quality])
        return readings

    def play(self) -> Any:
        """Return a player for a notebook cell (``IPython.display.Audio``).

        IPython scales the samples so that the loudest sample is full scale.
        """
        try:
            from IPython import display
        except ImportError as error:
            raise ImportError(MISSING.format(name="IPython")) from error
        player: Any = display.Audio  # untyped
        silent = not self.samples.any()  # IPython would divide by zero
        samples = self.samples.T if len(self.samples) else np.zeros((1, 1), np.float32)
        return player(samples, rate=self.sample_rate_hz, normalize=not silent)

    def plot(self) -> Any:
        """Return a figure of the waveform above its spectrograms (``matplotlib``'s Figure).

        Time is in seconds from the start of the recording, frequency is in Hz. The chunks are
        drawn on the waveform: their borders, their numbers and their padding. A spectrogram shows
        the first channel, chunk by chunk.
        """
        from melmill.pipelines.notebook.plots import plot_audio  # loads what draws

        return plot_audio(self)

    def draw(self, axes: Any, name: str | None = None) -> None:
        """Draw a spectrogram, in Hz and seconds, onto axes of ``matplotlib``.

        Parameters
        ----------
        axes
            The axes to draw on.
        name
            The name of the feature; ``None`` for the first spectrogram of the recipe.

        Raises
        ------
        ConfigError
            The recipe has no such spectrogram.
        """
        from melmill.pipelines.notebook.plots import draw_feature  # loads what draws

        draw_feature(axes, self, name)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk(Audio):
    """A window of a recording; it becomes a row of the dataset, or a row per channel.

    Attributes
    ----------
    index, start_sample, valid_samples
        The values of the dataset's columns ``chunk_index``, ``start_sample``, ``valid_samples``.
    placed
        For each sample rate of the features: the chunk's place, and its samples with those around
        it that its features need (``chunk.edges``).
    """

    index: int
    start_sample: int
    valid_samples: int
    placed: tuple[PlacedChunk, ...] = field(repr=False)

    @property
    def filled_samples(self) -> int:
        """Return the number of samples that are not padding."""
        return self.placed[0][0].filled

    @property
    def start_second(self) -> float:
        """Return the place in the recording at which the chunk starts."""
        return self.start_sample / self.sample_rate_hz

    @property
    def stop_second(self) -> float:
        """Return the place in the recording at which the chunk ends, with its padding."""
        return self.start_second + self.seconds

    @property
    def title(self) -> str:
        """Return the title of a picture."""
        name = Path(self.uri).name
        return f"{name}, chunk {self.index}: {self.start_second:.2f} to {self.stop_second:.2f} s"

    def chunks(self) -> Iterator[Chunk]:
        """Yield this chunk."""
        yield self


def load(uri: str | Path, recipe: Config | str | Path | None = None) -> Audio:
    """Decode, mix and resample a whole recording, and return it.

    Parameters
    ----------
    uri
        A path, or any URL that fsspec opens.
    recipe
        The path of a YAML file, the name of a recipe that comes with melmill, or the result of
        ``load_config``; ``None`` for the default recipe, which has librosa's settings.

    Raises
    ------
    RecordingError
        The recording cannot be read, or lacks the channel that the recipe selects.
    ConfigError
        The recipe has faults; the message names all of them.
    """
    if not isinstance(recipe, Config):
        recipe = load_config(recipe)
    recipe = pin_models(recipe, str(uri), trial=False)
    try:
        return _load(str(uri), recipe.feature_spec())
    except RecordingError as error:
        # The pipeline stores a failure together with the URI; here the message must name it.
        raise RecordingError(error.stage, error.cause, f"{uri}: {error.message}") from error


def _load(uri: str, features: FeatureSpec) -> Audio:
    source = StoredObject(uri)
    audio = probe_audio(source)
    check_channels(audio.channels, features.channels)
    at_rates = {spec.sample_rate_hz: _read(source, audio, spec) for spec in features.by_rate}
    return Audio(uri, at_rates[features.sample_rate_hz], features, at_rates=at_rates)


def _read(source: StoredObject, audio: AudioInfo, features: FeatureSpec) -> Samples:
    length = resampled_length(audio.frames, audio.sample_rate_hz, features.sample_rate_hz)
    samples = np.empty((length, count_channels(audio.channels, features.channels)), np.float32)
    position = 0
    for block in read_samples(audio, features, source, 0, length):
        samples[position : position + len(block)] = block
        position += len(block)
    return samples
