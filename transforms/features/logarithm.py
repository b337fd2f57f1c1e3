"""The logarithm of mel values: decibels as in librosa, or a plain logarithm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray

Positive = Annotated[float, Gt(0), Lt(math.inf)]
NonNegative = Annotated[float, Ge(0), Lt(math.inf)]
#: Numbers that do not overflow float32 together with samples.
Scale = Annotated[float, Gt(0), Le(1e10)]
Finite = Annotated[float, Ge(-1e9), Le(1e9)]

#: Metadata of a setting that was added later. Where it has its default, a recipe's digest leaves it
#: out, so that the digest of an older recipe does not change.
ADDED = {"added": True}

#: Dotted key below ``mel``, its value, and a description of the allowed values.
Contradiction = tuple[str, object, str]


@dataclass(frozen=True, slots=True)
class LogSpec:
    """How mel values are compressed.

    Attributes
    ----------
    kind
        ``db`` (10·log10 of the power), ``ln``, ``log10``, or ``none`` for no logarithm.
    ref
        Value that becomes 0 dB (``db`` only): a power, or an amplitude where the mel values
        are amplitudes, or ``max`` for the maximum of the chunk.
    floor
        Lowest value that enters the logarithm; smaller values are raised to it, so that
        silence stays finite. For ``db`` it is always a power: the ``amin`` of
        ``librosa.power_to_db``, and the square of the ``amin`` of ``librosa.amplitude_to_db``.
    gain, offset
        Factor of the mel values, and number that is then added, before the floor and the
        logarithm (``ln`` and ``log10`` only).
    top_db
        Range below the chunk's own maximum (``db`` only). Lower values are raised to the
        bottom of this range.
    range
        The same for ``ln`` and ``log10``, in the unit of the logarithm.
    range_top
        Upper end of ``range``: ``max`` for the chunk's own maximum, or a fixed number.
    """

    kind: Literal["db", "ln", "log10", "none"] = "db"
    ref: Positive | Literal["max"] = 1.0
    floor: NonNegative = 1e-10
    offset: NonNegative = 0.0
    top_db: NonNegative | None = 80.0
    gain: Scale = field(default=1.0, metadata=ADDED)
    range: NonNegative | None = field(default=None, metadata=ADDED)
    range_top: Finite | Literal["max"] = field(default="max", metadata=ADDED)


def log_contradictions(log: LogSpec) -> Iterator[Contradiction]:
    """Yield each setting that another setting makes impossible.

    Parameters
    ----------
    log
        Settings. Each field is within its annotated bounds.

    Yields
    ------
    (key, value, allowed)
        See :func:`~melmill.transforms.features.mel_spec.contradictions`.

    Examples
    --------
    >>> list(log_contradictions(LogSpec("ln")))
    [('log.top_db', 80.0, "null where log.kind is 'ln'")]
    """
    where = f"where log.kind is {log.kind!r}"
    if log.kind != "db" and log.ref != 1.0:
        yield "log.ref", log.ref, f"1.0 {where}"
    if log.kind != "db" and log.top_db is not None:
        yield "log.top_db", log.top_db, f"null {where}"
    if log.kind in ("db", "none"):
        for name, default in (("offset", 0.0), ("gain", 1.0), ("range", None)):
            if (value := getattr(log, name)) != default:
                yield f"log.{name}", value, f"{'null' if default is None else default} {where}"
    if log.range is None and log.range_top != "max":
        yield "log.range_top", log.range_top, "max where log.range is null"
    if log.kind != "none" and not np.float32(log.floor + log.offset):
        yield "log.floor", log.floor, "above 1e-45, or the logarithm of silence is infinite"


def take_logarithm(mel: NDArray[np.float32], log: LogSpec, *, power: Literal[1, 2]) -> None:
    """Replace the mel values of one chunk by their logarithms.

    ``ln`` and ``log10`` are log(max(gain·mel + offset, floor)); ``db`` is
    ``librosa.power_to_db`` where ``power`` is 2, and ``librosa.amplitude_to_db`` where
    ``power`` is 1, applied to this chunk only.

    Parameters
    ----------
    mel
        Powers or amplitudes, not negative; shape [n_mels, n_frames], float32. Overwritten.
    log
        Settings of the logarithm.
    power
        2 if ``mel`` holds powers, 1 if it holds amplitudes.
    """
    if log.kind == "db":
        _take_decibels(mel, log, power)
    elif log.kind != "none":
        if log.gain != 1:
            np.multiply(mel, log.gain, out=mel)
        np.add(mel, log.offset, out=mel)
        np.maximum(mel, log.floor, out=mel)
        (np.log if log.kind == "ln" else np.log10)(mel, out=mel)
        if log.range is not None:
            top = mel.max() if log.range_top == "max" else log.range_top
            np.maximum(mel, np.float32(top - log.range), out=mel)


def _take_decibels(mel: NDArray[np.float32], log: LogSpec, power: int) -> None:
    if power == 1:
        np.square(mel, out=mel)
    np.maximum(mel, log.floor, out=mel)
    np.log10(mel, out=mel)
    np.multiply(mel, 10.0, out=mel)
    np.subtract(mel, mel.max() if log.ref == "max" else _ref_db(log.floor, log.ref, power), out=mel)
    if log.top_db is not None:
        np.maximum(mel, mel.max() - np.float32(log.top_db), out=mel)


def _ref_db(floor: float, ref: float, power: int) -> float:
    return 10.0 * math.log10(max(floor, ref if power == 2 else ref**2))
