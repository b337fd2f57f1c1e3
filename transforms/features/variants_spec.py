"""The settings of variants: changed copies of each recording, which get rows of their own.

A variant is a list of words with their values, which are applied in order. ``speed`` is applied by
the conversion of the sample rate. Every other word changes one chunk at a time, at the sample rate
of the features, before the chunk is padded. What is random in it is drawn from a digest of the
variant's seed and number, the recording and the chunk, so a row does not depend on how the work is
divided.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, TypeAlias

from melmill.transforms.core.naming import fraction
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.features.chunks import Surroundings, resampled_length
from melmill.transforms.features.codecs import AFTER_S, BEFORE_S

#: Settings of a word as plain values, by key.
Values = dict[str, Any]


#: Words whose values are places of files.
_PLACES = ("noise", "rir")


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed at which a recording is played; the pitch changes with it."""

    factor: float

    @property
    def exact(self) -> Fraction:
        """The speed as the fraction that the recipe writes in decimals."""
        return Fraction(repr(self.factor))

    def values(self) -> Values:
        """Return the word as a recipe has it."""
        return {"speed": self.factor}


@dataclass(frozen=True, slots=True)
class Gain:
    """A gain in dB, drawn uniformly from a range for each chunk."""

    low_db: float
    high_db: float

    def values(self) -> Values:
        """Return the word as a recipe has it."""
        return {"gain_db": [self.low_db, self.high_db]}


@dataclass(frozen=True, slots=True)
class SoundFile:
    """A file that a word uses, as it is when the run starts.

    Attributes
    ----------
    uri, size_bytes, fingerprint
        Location, size and version.
    sha256
        SHA-256 of the content.
    audio
        Header of the file.
    """

    uri: str
    size_bytes: int
    fingerprint: str
    sha256: str
    audio: AudioInfo


@dataclass(frozen=True, slots=True)
class Sounds:
    """The files of a word.

    Attributes
    ----------
    uri
        Folder, glob or file.
    sha256
        Digest of the contents of all files: rows depend on it, and not on names and places. Empty:
        as the files are when the run starts.
    files
        Files, in the order of their contents; ``()`` if the run does not compute rows.
    """

    uri: str
    sha256: str = ""
    files: tuple[SoundFile, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise that is added to each chunk.

    Attributes
    ----------
    sounds
        Files; one is drawn for each chunk, and a place in it.
    low_db, high_db
        Range of the signal-to-noise ratio, which is drawn for each chunk.
    """

    sounds: Sounds
    low_db: float
    high_db: float

    def values(self) -> Values:
        """Return the word as a recipe has it."""
        snr_db = {"snr_db": [self.low_db, self.high_db]}
        return {"noise": self.sounds.uri, **_pinned(self.sounds), **snr_db}


@dataclass(frozen=True, slots=True)
class Rir:
    """The response of a room to an impulse, which each chunk is convolved with.

    Attributes
    ----------
    sounds
        Files; one is drawn for each chunk.
    """

    sounds: Sounds

    def values(self) -> Values:
        """Return the word as a recipe has it."""
        return {"rir": self.sounds.uri, **_pinned(self.sounds)}

    def surroundings(self, rate_hz: int) -> Surroundings:
        """Return how many samples around a chunk the longest response may reach."""
        lengths = (
            resampled_length(file.audio.frames, file.audio.sample_rate_hz, rate_hz)
            for file in self.sounds.files
        )
        longest = max(lengths, default=0)
        return Surroundings(longest, longest)


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec that each chunk passes through.

    Attributes
    ----------
    setting
        Name of the codec with its bit rate; see :func:`check_codec`.
    """

    setting: str

    def values(self) -> Values:
        """Return the word as a recipe has it."""
        return {"codec": self.setting}

    def surroundings(self, rate_hz: int) -> Surroundings:
        """Return how many samples around a chunk are encoded with it."""
        return Surroundings(round(BEFORE_S * rate_hz), round(AFTER_S * rate_hz))


def _pinned(sounds: Sounds) -> Values:
    return {"sha256": sounds.sha256} if sounds.sha256 else {}


Word: TypeAlias = Speed | Gain | Noise | Rir | Codec

#: Words that use files.
WITH_SOUNDS = (Noise, Rir)


@dataclass(frozen=True, slots=True)
class VariantSpec:
    """The settings of a variant.

    Attributes
    ----------
    words
        Words in the order in which they are applied.
    seed
        Seed of what is random.
    """

    words: tuple[Word, ...]
    seed: int = 0

    @property
    def speed(self) -> Fraction:
        """Speed at which the recording is played."""
        first = self.words[0]
        return first.exact if isinstance(first, Speed) else Fraction(1)

    @property
    def changes_chunks(self) -> bool:
        """Whether a word changes each chunk on its own."""
        return not all(isinstance(word, Speed) for word in self.words)

    @property
    def lacks_files(self) -> bool:
        """Whether a word needs files that were not looked for."""
        return any(isinstance(w, WITH_SOUNDS) and not w.sounds.files for w in self.words)

    def surroundings(self, rate_hz: int) -> Surroundings:
        """Return how many samples around a chunk the words need, at a sample rate."""
        needed = (w.surroundings(rate_hz) for w in self.words if isinstance(w, Rir | Codec))
        return sum(needed, Surroundings())

    def values(self) -> list[Values]:
        """Return the variant as a recipe has it: a list, which keeps the order of the words."""
        words = [word.values() for word in self.words]
        return [*words, {"seed": self.seed}] if self.seed else words

    def canonical(self) -> list[Values]:
        """Return what the rows depend on: the digests of files, and not their places."""
        return [
            {key: "" if key in _PLACES else value for key, value in word.items()}
            for word in self.values()
        ]

    def with_words(self, words: Iterable[Word]) -> VariantSpec:
        """Return the variant with other words."""
        return replace(self, words=tuple(words))

    def text(self) -> str:
        """Return the variant as text for people.

        >>> VariantSpec((Speed(0.9), Gain(-6, 0))).text()
        'speed 0.9, gain_db -6 to 0'
        """
        return variant_text(self.values())


def variant_text(words: Iterable[Values]) -> str:
    """Return a variant's values as text for people; see :meth:`VariantSpec.canonical`.

    >>> variant_text([{"noise": "", "sha256": "ab", "snr_db": [5, 20]}, {"codec": "opus@24k"}])
    'noise, snr_db 5 to 20, codec opus@24k'
    """
    items = (item for word in words for item in word.items())
    ranges = (
        (key, f"{value[0]:g} to {value[1]:g}" if isinstance(value, list | tuple) else str(value))
        for key, value in items
        if key != "sha256"
    )
    return ", ".join(f"{key} {value}".strip() for key, value in ranges)


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers of a variant of a recording.

    Attributes
    ----------
    seed, variant
        Seed of the variant, and its number.
    recording_id
        Id of the recording.
    """

    seed: int
    variant: int
    recording_id: str

    def number(self, word: int, chunk: int, what: str) -> float:
        """Return a number in [0, 1) for a word of the variant, by its number, and for a chunk."""
        numbers = map(str, (self.seed, self.variant, word, chunk))
        return fraction("variant", self.recording_id, *numbers, what)

    def uniform(self, word: int, chunk: int, what: str, low: float, high: float) -> float:
        """Return a number from a range."""
        return low + (high - low) * self.number(word, chunk, what)
