"""How many frames or samples of a feature are not padding, counted for each row.

Frame t of a chunk covers the samples under its window: with ``n_fft`` samples and a window of
``win_length``, those from ``t · hop_length − padding + (n_fft − win_length) // 2`` on, where the
padding is ``n_fft // 2`` if frames are centred (see
:func:`~melmill.transforms.features.stft_spec.framing`). A frame is valid if its window covers at
least one valid sample of the chunk: one that comes from the recording at this place, and is neither
padding nor a repetition. Valid frames come first, so a row needs their number alone; frames of
padding before the first valid one, which a large ``pad_samples`` makes, are counted with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from melmill.transforms.features.chunks import ChunkSpec, Place
from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.features.spec import FeatureSpec, valid_column
from melmill.transforms.features.stft_spec import (
    StftSpec,
    framing,
    framing_with_neighbours,
    win_length,
)


def count_valid(features: FeatureSpec, chunks: Iterable[Sequence[Place]]) -> dict[str, list[int]]:
    """Return the numbers of valid frames and samples of chunks, by the names of their columns.

    Parameters
    ----------
    features
        Settings of the rows.
    chunks
        For each chunk its place at each sample rate; see :attr:`FeatureSpec.by_rate`.

    Examples
    --------
    >>> from melmill.transforms.features.chunks import place_chunk
    >>> features = FeatureSpec()
    >>> count_valid(features, [[place_chunk(0, 10_000, features.chunk)]])
    {'valid_frames': [22]}
    """
    counts: dict[str, list[int]] = {}
    for at_rate, places in zip(features.by_rate, zip(*chunks, strict=True), strict=True):
        is_base = at_rate.sample_rate_hz == features.sample_rate_hz
        for feature in at_rate.features:
            column = valid_column(feature, is_base=is_base)
            if isinstance(feature.spec, StftSpec):
                spec, chunk = feature.spec, at_rate.chunk
                counts[column] = [valid_frames(spec, chunk, place) for place in places]
            elif column and not is_base:
                counts[column] = [place.valid for place in places]
    return counts


def valid_frames(spec: StftSpec, chunk: ChunkSpec, place: Place) -> int:
    """Return the number of frames of a chunk, from the first, that are valid.

    A stacked frame is valid if one of its frames is. Frames that hold ``padded_frames`` are not.
    With ``chunk.edges: neighbours``, all frames of a whole chunk are valid.

    Parameters
    ----------
    spec
        Settings of the feature.
    chunk, place
        Settings and place of the chunk at the feature's sample rate.

    Examples
    --------
    >>> chunk = ChunkSpec(16_000, 16_000, "pad")
    >>> spec = StftSpec(n_fft=400, hop_length=160)
    >>> [valid_frames(spec, chunk, Place(0, 0, n, n)) for n in (1, 200, 201, 16_000)]
    [2, 3, 3, 101]
    """
    is_whole = place.valid == chunk.length
    with_neighbours = chunk.edges == "neighbours"
    places = (framing_with_neighbours if with_neighbours else framing)(spec, chunk.length)
    stack = spec.stack_frames if isinstance(spec, MelSpec) else 1
    frames = places.n_frames
    if not (with_neighbours and is_whole):
        window = (places.frame_samples - win_length(spec)) // 2  # its first sample in a frame
        first_invalid = -(-(place.valid + places.before_samples - window) // places.hop_samples)
        frames = min(frames, max(0, first_invalid))
        end_of_last = (frames - 1) * places.hop_samples + window + win_length(spec)
        if end_of_last <= places.before_samples:  # not even the last frame reaches the chunk
            frames = 0
    if isinstance(spec, MelSpec) and spec.padded_frames is not None and place.filled < chunk.length:
        frames = min(frames, max(0, framing(spec, place.filled).n_frames))
    return min(places.n_frames // stack, -(-frames // stack))
