"""Channels: how alike the channels are, and what is left of them in a mix to mono."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.blocks import Block, Shape, hop_energies, hop_products
from melmill.transforms.measures.meters import Measure, Reading, exact, inexact

MEASURES = (
    Measure("channels.correlation", "float", "", "Correlation of the first two channels, −1 to 1."),
    Measure("channels.imbalance", "float", "dB", "RMS of the left channel minus the right's."),
    Measure(
        "channels.mono_loss",
        "float",
        "dB",
        "Level that a mix of two channels to mono loses: 0 for equal channels, 3 for independent "
        "ones, at most 120 if they cancel each other.",
    ),
    Measure(
        "channels.dead",
        "bool",
        "",
        "A channel is at least 60 dB below the loudest. The low-frequency channel of six is not "
        "considered.",
    ),
    Measure("channels.dual_mono", "bool", "", "Two channels are the same within −50 dB."),
    Measure("channels.inverted", "bool", "", "Two channels have a correlation below −0.9."),
)

_DEAD_RATIO = 1e-6
_DUAL_MONO_RATIO = 1e-5
_INVERTED = -0.9
_MAX_LOSS_DB = 120.0
#: Share of the channels' energy below which a sum or a difference is computed sample by sample.
_COARSE = 1e-3
_OPPOSITE = np.array([[1], [-1]], np.float32)
_LOW_FREQUENCY = 3
_SURROUND_CHANNELS = 6


@dataclass(slots=True)
class ChannelsMeter:
    """A meter of the channels' likeness; see :data:`MEASURES`.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    energies
        Exact sums of squares by channel.
    mix, side
        Exact sums of squares of the sum and of the difference of the first two channels.
    """

    shape: Shape
    energies: list[int] = field(default_factory=list)
    mix: int = 0
    side: int = 0

    def __post_init__(self) -> None:
        """Set the number of channels."""
        self.energies = self.energies or [0] * self.shape.channels

    def add(self, block: Block) -> None:
        """Add the next block."""
        samples = block.samples
        if len(samples) < 2:
            return
        energies = block.energies.sum(axis=1).tolist()
        self.energies = [a + exact(b) for a, b in zip(self.energies, energies, strict=True)]
        mix, side = self._mix_and_side(samples, energies)
        self.mix += exact(mix)
        self.side += exact(side)

    def _mix_and_side(
        self, samples: npt.NDArray[np.float32], energies: list[float]
    ) -> tuple[float, float]:
        """Return the energies of the sum and of the difference of the first two channels."""
        hop = self.shape.hop_frames
        both = energies[0] + energies[1]
        product = float(hop_products(samples[:1], samples[1:2], hop).sum())
        # Where nearly nothing is left, the products are too coarse.
        side = both - 2 * product
        if side < _COARSE * both:
            side = _energy_of_sum(samples[:2] * _OPPOSITE, hop)
        mix = both + 2 * product
        if mix < _COARSE * both:
            mix = _energy_of_sum(samples[:2], hop)
        return mix, side

    def merge(self, later: ChannelsMeter) -> None:
        """Add what another meter read from the blocks after these."""
        self.energies = [a + b for a, b in zip(self.energies, later.energies, strict=True)]
        self.mix += later.mix
        self.side += later.side

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's name; ``None`` for one channel, or for silence."""
        energies = [inexact(energy) for energy in self.energies]
        if self.shape.channels < 2 or not any(energies):
            return {measure.name: None for measure in MEASURES}
        left, right = energies[:2]
        correlation = None
        if left and right:
            product = (left + right - inexact(self.side)) / 2
            correlation = max(-1.0, min(1.0, product / math.sqrt(left * right)))
        is_stereo = self.shape.channels == 2
        is_dual = inexact(self.side) < _DUAL_MONO_RATIO * (left + right)
        return {
            "channels.correlation": correlation,
            "channels.imbalance": _imbalance(left, right, self.shape.channels),
            "channels.mono_loss": self._mono_loss(left + right) if is_stereo else None,
            "channels.dead": self._is_dead(energies),
            "channels.dual_mono": is_stereo and is_dual,
            "channels.inverted": is_stereo and (correlation or 0) < _INVERTED,
        }

    def _mono_loss(self, energy: float) -> float:
        mixed = inexact(self.mix) / 2
        return min(_MAX_LOSS_DB, 10 * math.log10(energy / mixed)) if mixed else _MAX_LOSS_DB

    def _is_dead(self, energies: list[float]) -> bool:
        if len(energies) == _SURROUND_CHANNELS:
            energies = [energy for i, energy in enumerate(energies) if i != _LOW_FREQUENCY]
        return min(energies) <= _DEAD_RATIO * max(energies)


def _imbalance(left: float, right: float, channels: int) -> float | None:
    return 10 * math.log10(left / right) if channels == 2 and left and right else None


def _energy_of_sum(samples: npt.NDArray[np.float32], hop: int) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        total = samples[0] + samples[1]
    return float(hop_energies(np.nan_to_num(total)[None], hop).sum())
