"""Reads a variant from a recipe's entry, and says what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from melmill.transforms.catalogue.left_out import absolute_file
from melmill.transforms.features.codecs import check_codec
from melmill.transforms.features.variants_spec import (
    Codec,
    Gain,
    Noise,
    Rir,
    Sounds,
    Speed,
    Values,
    VariantSpec,
    Word,
)

#: Speeds that are allowed.
_SPEEDS = Fraction(1, 2), Fraction(2)
_MAX_DB = 60.0


def parse_variant(value: object) -> VariantSpec:
    """Return a variant from a recipe's entry; raise ``ValueError`` if the entry is wrong.

    The entry is a mapping of words, or a list of such mappings, which are applied in order.

    >>> parse_variant({"speed": 0.9, "gain_db": -3}).words
    (Speed(factor=0.9), Gain(low_db=-3.0, high_db=-3.0))
    """
    parts: Any = value if isinstance(value, list | tuple) else [value]
    if not parts or not all(isinstance(part, Mapping) and part for part in parts):
        raise ValueError(f"should be words with their values, such as {{speed: 0.9}}; {_allowed()}")
    words: list[Word] = []
    seed: object = 0
    for part in parts:
        rest = {str(key): item for key, item in part.items()}
        seed = rest.pop("seed", seed)
        words += [_WORDS[name](rest) for name in tuple(rest) if name in _WORDS and name in rest]
        if rest:
            raise ValueError(f"{next(iter(rest))} is no word of a variant; {_allowed()}")
    if not words:
        raise ValueError(f"has no word that changes a recording; {_allowed()}")
    if type(seed) is not int:
        raise ValueError(f"seed: {seed!r}: should be a whole number")
    if any(isinstance(word, Speed) for word in words[1:]):
        raise ValueError("speed should be the first word: the others change what speed gives")
    return VariantSpec(tuple(words), seed)


def _allowed() -> str:
    return f"allowed: {', '.join((*_WORDS, 'seed'))}"


def _speed(values: Values) -> Speed:
    factor = values.pop("speed")
    low, high = _SPEEDS
    if not _is_number(factor) or not low <= factor <= high:
        raise ValueError(f"speed: {factor!r}: should be a number from {low} to {high}")
    speed = Speed(float(factor))
    if (speed.exact * 1000).denominator != 1:
        raise ValueError(f"speed: {factor}: should have at most three decimals")
    return speed


def _gain(values: Values) -> Gain:
    return Gain(*_range(values, "gain_db"))


def _noise(values: Values) -> Noise:
    sounds = _sounds(values, "noise")
    if "snr_db" not in values:
        raise ValueError(
            "noise needs snr_db, a number or a range, such as {noise: hum, snr_db: 10}"
        )
    return Noise(sounds, *_range(values, "snr_db"))


def _rir(values: Values) -> Rir:
    return Rir(_sounds(values, "rir"))


def _codec(values: Values) -> Codec:
    setting = values.pop("codec")
    check_codec(str(setting))
    return Codec(str(setting))


def _sounds(values: Values, key: str) -> Sounds:
    uri, sha256 = values.pop(key), values.pop("sha256", "")
    if not isinstance(uri, str) or not (uri or sha256):
        raise ValueError(f"{key}: {uri!r}: should be a folder, a glob or a file")
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}|", sha256):
        raise ValueError(f"sha256: {sha256!r}: should be 64 hexadecimal digits in small letters")
    return Sounds(absolute_file(uri) if uri else "", sha256)


def _range(values: Values, key: str) -> tuple[float, float]:
    """Return the two ends of a range of decibels; a single number is both."""
    value = values.pop(key)
    ends = value if isinstance(value, list | tuple) else [value, value]
    if len(ends) != 2 or not all(_is_number(end) and abs(end) <= _MAX_DB for end in ends):
        allowed = f"a number from {-_MAX_DB:g} to {_MAX_DB:g}, or a list of two, such as [5, 20]"
        raise ValueError(f"{key}: {value!r}: should be {allowed}")
    if ends[0] > ends[1]:
        raise ValueError(f"{key}: {value!r}: the first number should not exceed the second")
    return float(ends[0]), float(ends[1])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


#: Functions that take the values of a word from a mapping, by the name of the word.
_WORDS: dict[str, Callable[[Values], Word]] = {
    "speed": _speed,
    "gain_db": _gain,
    "noise": _noise,
    "rir": _rir,
    "codec": _codec,
}
