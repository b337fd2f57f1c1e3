"""The logarithm of mel values: decibels as librosa takes them, or a plain logarithm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

Positive = Annotated[float, Gt(0), Lt(math.inf)]
NonNegative = Annotated[float, Ge(0), Lt(math.inf)]

#: A dotted key below ``mel``, its value, and what it may be instead.
Contradiction = tuple[str, object, str]


@dataclass(frozen=True, slots=True)
class LogSpec:
    """How mel values are compressed.

    Attributes
    ----------
    kind
        ``db`` (10·log10 of the power), ``ln``, ``log10``, or ``none`` for the bare values.
    ref
        ``db`` only: the value that becomes 0 dB, a power (an amplitude where the mel
        values are amplitudes), or ``max`` for the chunk's own maximum.
    floor
        What smaller values are raised to before the logarithm, so that silence stays
        finite. For ``db`` always a power: the ``amin`` of ``librosa.power_to_db``, the
        square of that of ``librosa.amplitude_to_db``.
    offset
        ``ln`` and ``log10`` only: added before the floor and the logarithm.
    top_db
        ``db`` only: values further than this below the chunk's own maximum are raised
        to there.
    """

    kind: Literal["db", "ln", "log10", "none"] = "db"
    ref: Positive | Literal["max"] = 1.0
    floor: NonNegative = 1e-10
    offset: NonNegative = 0.0
    top_db: NonNegative | None = 80.0


def log_contradictions(log: LogSpec) -> Iterator[Contradiction]:
    """Find every setting that another one makes impossible.

    Parameters
    ----------
    log
        Whose fields are each within their annotated bounds.

    Yields
    ------
    (key, value, allowed)
        See :func:`melmill.transforms.features.mel.contradictions`.

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
    if log.kind in ("db", "none") and log.offset:
        yield "log.offset", log.offset, f"0.0 {where}"
    if log.kind != "none" and not np.float32(log.floor + log.offset):
        yield "log.floor", log.floor, "above 1e-45, or the logarithm of silence is infinite"


def take_logarithm(mel: NDArray[np.float32], log: LogSpec, *, power: Literal[1, 2]) -> None:
    """Compress the mel values of one chunk, in place.

    ``ln`` and ``log10`` are log(max(mel + offset, floor)); ``db`` is
    ``librosa.power_to_db`` where ``power`` is 2 and ``librosa.amplitude_to_db`` where it
    is 1, both of the one chunk.

    Parameters
    ----------
    mel
        Shape [n_mels, n_frames], float32, not negative: powers, or amplitudes.
    log
        How.
    power
        2 if ``mel`` holds powers, 1 if amplitudes.
    """
    if log.kind == "db":
        _take_decibels(mel, log, power)
    elif log.kind != "none":
        np.add(mel, log.offset, out=mel)
        np.maximum(mel, log.floor, out=mel)
        (np.log if log.kind == "ln" else np.log10)(mel, out=mel)


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
