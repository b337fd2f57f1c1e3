"""Bits: how many bits of integer samples are really used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melmill.transforms.measures.blocks import Block, Shape
from melmill.transforms.measures.meters import Measure, Reading

MEASURES = (
    Measure(
        "origin.bits",
        "int",
        "bits",
        "Bits that the samples use, up to 24, in the first 100 ms of each block of two seconds; "
        "null if the samples are not integers, as from lossy codecs.",
    ),
)

_BITS = 24


@dataclass(slots=True)
class BitsMeter:
    """A meter of used bits: it reads the first 100 ms of each block.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    used
        Bits that any sample uses.
    is_integer
        Whether all samples are integers of 24 bits.
    """

    shape: Shape
    used: int = 0
    is_integer: bool = True

    def add(self, block: Block) -> None:
        """Add the next block."""
        if not self.is_integer:
            return
        scaled = block.samples[:, : self.shape.hop_frames] * np.float32(1 << (_BITS - 1))
        values = np.clip(scaled, -(2.0**30), 2.0**30).astype(np.int32)
        if (values == scaled).all():
            self.used |= int(np.bitwise_or.reduce(np.abs(values), axis=None))
        else:
            self.is_integer, self.used = False, 0

    def merge(self, later: BitsMeter) -> None:
        """Add what another meter read from the blocks after these."""
        self.is_integer = self.is_integer and later.is_integer
        self.used = self.used | later.used if self.is_integer else 0

    def readings(self) -> dict[str, Reading]:
        """Return the reading; ``None`` for silence and for samples that are no integers."""
        unused = (self.used & -self.used).bit_length() - 1
        return {"origin.bits": max(1, _BITS - unused) if self.used else None}
