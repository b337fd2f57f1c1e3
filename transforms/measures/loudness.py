"""Loudness: how loud a recording is by ITU-R BS.1770-4, and its range by EBU Tech 3342.

The energy of each hop of 100 ms is computed from its spectrum. All measures follow from these
energies: windows of 400 ms and of three seconds are sums of hops. A window starts at every hop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from melmill.transforms.features.loudness import k_weighting
from melmill.transforms.measures.blocks import Block, Shape
from melmill.transforms.measures.histograms import count, merge
from melmill.transforms.measures.meters import Measure, Reading, exact, inexact

MEASURES = (
    Measure(
        "loudness.integrated",
        "float",
        "LUFS",
        "Loudness of all but the pauses. One channel reads 3 LU less than two equal channels.",
    ),
    Measure("loudness.momentary_max", "float", "LUFS", "Loudness of the loudest 400 ms."),
    Measure("loudness.momentary_max_second", "float", "s", "Start of the loudest 400 ms."),
    Measure("loudness.short_term_max", "float", "LUFS", "Loudness of the loudest three seconds."),
    Measure("loudness.short_term_max_second", "float", "s", "Start of the loudest three seconds."),
    Measure("loudness.range", "float", "LU", "Loudness of loud passages minus that of quiet ones."),
)

#: Number of hops in the windows of momentary and of short-term loudness.
MOMENTARY_HOPS, SHORT_TERM_HOPS = 4, 30
#: Number of hops that a meter keeps at each end, for windows across the border to its neighbour.
_KEPT_HOPS = SHORT_TERM_HOPS - 1
#: LUFS of a mean square of 1 in one channel, after the filters.
_OFFSET_LUFS = -0.691
_ABSOLUTE_GATE_LUFS, _INTEGRATED_GATE_LU = -70.0, -10.0
_RANGE_GATE_LU, _QUIET, _LOUD = -20.0, 0.10, 0.95
_STEPS_PER_LU = 256
#: Weights of channels, by the number of channels; all others weigh 1.
_WEIGHTS = {5: [1, 1, 1, 1.41, 1.41], 6: [1, 1, 1, 0, 1.41, 1.41]}
#: Below this rate, the filters of BS.1770 do not exist.
MIN_RATE_HZ = 4_000
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(slots=True)
class Windows:
    """The energies of all windows of one length.

    Attributes
    ----------
    hops
        Number of hops in a window.
    loudest, loudest_hop
        Largest energy of a window, and the first hop of the first window that has it.
    counts, energies
        Number of windows above the absolute gate, and the exact sum of their energies, by the
        loudness in steps of 1/256 LU.
    """

    hops: int
    loudest: float = 0.0
    loudest_hop: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    energies: dict[int, int] = field(default_factory=dict)

    def add(self, hop_energies: list[float], first_hop: int) -> None:
        """Add all windows of some consecutive hops."""
        for hop in range(len(hop_energies) - self.hops + 1):
            energy = math.fsum(hop_energies[hop : hop + self.hops]) / self.hops
            self._add_loudest(energy, first_hop + hop)
            lufs = to_lufs(energy)
            if lufs is not None and lufs > _ABSOLUTE_GATE_LUFS:
                step = math.floor(lufs * _STEPS_PER_LU)
                count(self.counts, [step])
                merge(self.energies, {step: exact(energy)})

    def merge(self, later: Windows, hops: int) -> None:
        """Add the windows of a part that starts some hops later."""
        self._add_loudest(later.loudest, later.loudest_hop + hops)
        merge(self.counts, later.counts)
        merge(self.energies, later.energies)

    def _add_loudest(self, energy: float, hop: int) -> None:
        if energy > self.loudest:
            self.loudest, self.loudest_hop = energy, hop

    def gated(self, gate_lu: float) -> dict[int, int]:
        """Return the counts of the windows above the relative gate, by the loudness in steps."""
        lufs = self.mean_lufs(self.counts)
        if lufs is None:
            return {}
        gate = math.floor((lufs + gate_lu) * _STEPS_PER_LU)
        return {step: windows for step, windows in self.counts.items() if step >= gate}

    def mean_lufs(self, counts: dict[int, int]) -> float | None:
        """Return the loudness of the counted windows together; ``None`` if there are none."""
        energy = inexact(sum(self.energies[step] for step in counts))
        return to_lufs(energy / sum(counts.values())) if counts else None

    def range_lu(self) -> float | None:
        """Return the loudness range by EBU Tech 3342; ``None`` if no window is above the gate."""
        counts = self.gated(_RANGE_GATE_LU)
        if not counts:
            return None
        return (_percentile(counts, _LOUD) - _percentile(counts, _QUIET)) / _STEPS_PER_LU


@dataclass(slots=True)
class LoudnessMeter:
    """A meter of loudness; see :data:`MEASURES`.

    The decoder does not say which channel is which, so their number determines their weights. Five
    channels are L R C Ls Rs, and six are L R C LFE Ls Rs: the surround channels weigh 1.41, and the
    LFE channel is not measured. The channels of all other recordings weigh 1: a single channel
    reads 3 LU less than the same sound in two, as in libebur128.

    A last hop that is incomplete is ignored, as in libebur128. A recording shorter than 400 ms is
    measured as one window.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    frames
        Number of frames.
    rest
        Energy of the last hop if it is not complete, and the recording is shorter than 400 ms.
    first, last
        Energies of the first and of the last hops, at most 29 each.
    momentary, short_term
        Windows of 400 ms and of three seconds.
    """

    shape: Shape
    frames: int = 0
    rest: float = 0.0
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    momentary: Windows = field(default_factory=lambda: Windows(MOMENTARY_HOPS))
    short_term: Windows = field(default_factory=lambda: Windows(SHORT_TERM_HOPS))

    @property
    def _hops(self) -> int:
        return self.frames // self.shape.hop_frames

    def add(self, block: Block) -> None:
        """Add the next block."""
        if self.shape.rate_hz < MIN_RATE_HZ:
            return
        energies = weighted_energies(block)
        part = LoudnessMeter(self.shape, block.frames, _rest_energy(block))
        part.first, part.last = energies[:_KEPT_HOPS], energies[-_KEPT_HOPS:]
        part.momentary.add(energies, 0)
        part.short_term.add(energies, 0)
        self.merge(part)

    def merge(self, later: LoudnessMeter) -> None:
        """Add what another meter read from the blocks after these."""
        pairs = (self.momentary, later.momentary), (self.short_term, later.short_term)
        for windows, later_windows in pairs:
            before, after = self.last[1 - windows.hops :], later.first[: windows.hops - 1]
            windows.add(before + after, self._hops - len(before))
            windows.merge(later_windows, self._hops)
        self.first = (self.first + later.first)[:_KEPT_HOPS]
        self.last = (self.last + later.last)[-_KEPT_HOPS:]
        self.rest += later.rest
        self.frames += later.frames

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's name; ``None`` for silence."""
        momentary, short_term = self._momentary(), self.short_term
        return {
            "loudness.integrated": momentary.mean_lufs(momentary.gated(_INTEGRATED_GATE_LU)),
            "loudness.momentary_max": to_lufs(momentary.loudest),
            "loudness.momentary_max_second": self._second(momentary),
            "loudness.short_term_max": to_lufs(short_term.loudest),
            "loudness.short_term_max_second": self._second(short_term),
            "loudness.range": short_term.range_lu(),
        }

    def _momentary(self) -> Windows:
        if self._hops >= MOMENTARY_HOPS or not self.frames:
            return self.momentary
        energy = math.fsum([*(self.shape.hop_frames * hop for hop in self.first), self.rest])
        whole = Windows(hops=1)
        whole.add([energy / self.frames], 0)
        return whole

    def _second(self, windows: Windows) -> float | None:
        frame = windows.loudest_hop * self.shape.hop_frames
        return frame / self.shape.rate_hz if windows.loudest else None


def weighted_energies(block: Block) -> list[float]:
    """Return the mean square of each complete hop after the filters, summed over the channels.

    The filters run over the whole recording; see :class:`_Weighting`.
    """
    hop, before = block.shape.hop_frames, block.before // block.shape.hop_frames
    hops = before + block.frames // hop
    if hops == before:
        return []
    from scipy.fft import rfft  # imported here, because few processes need it

    samples = block.around[:, : hops * hop].reshape(len(block.around), hops, hop)
    weighting = _weighting(block.shape.rate_hz)
    with np.errstate(over="ignore", invalid="ignore"):
        spectra = rfft(samples[:, before:], axis=2).view(np.float32)
        energies = np.square(spectra, out=spectra) @ weighting.powers
        energies = energies + weighting.corrections(samples, before)
    # Samples are finite, so what is not finite is too large for float32.
    energies = np.where(np.isfinite(energies), energies, _LARGEST)
    totals = _channel_weights(block.shape.channels) @ energies
    return [float(energy) for energy in np.clip(totals, 0, _LARGEST)]


@dataclass(frozen=True, slots=True, eq=False)
class _Weighting:
    """The K-weighting of hops.

    A product with the filters' frequency response filters a hop as if the hop repeated forever: the
    hop begins with the transient of its own end, not of the previous hop's end. The transients are
    sums of four decaying exponentials, and fade within a hop (to e⁻²⁴). So they can be exchanged:
    four sums give the filtered hop's part in the space of transients, four the transient after it.

    Attributes
    ----------
    powers : float32 [2 * bins]
        Weights of the squares of the spectrum's real and imaginary parts.
    projections : float32 [hop, 8]
        Sums of the filtered hop and of the transient after the hop, in an orthonormal basis.
    """

    powers: npt.NDArray[np.float32]
    projections: npt.NDArray[np.float32]

    def corrections(self, hops: npt.NDArray[np.float32], before: int) -> npt.NDArray[np.float64]:
        """Return what true transients add to the energies, float64 [channels, hops - before]."""
        sums = (hops @ self.projections).astype(np.float64)
        filtered, after = sums[:, before:, :4], sums[:, :, 4:]
        changes = -after[:, before:]
        changes[:, 1 - before :] += after[:, :-1]
        energies: npt.NDArray[np.float64] = (changes * (2 * filtered + changes)).sum(axis=2)
        return energies


@lru_cache(maxsize=16)
def _weighting(rate_hz: int) -> _Weighting:
    hop = Shape(rate_hz, 1).hop_frames
    sections = k_weighting(rate_hz)
    delays = np.exp(-1j * np.pi * np.arange(hop + 1) / hop)
    responses = [np.polyval(s[2::-1], delays) / np.polyval(s[:2:-1], delays) for s in sections]
    response = np.prod(responses, axis=0)
    poles = np.array([np.roots(section[3:])[0] for section in sections])
    decays = poles ** np.arange(hop)[:, None]
    basis, _ = np.linalg.qr(np.concatenate([decays.real, decays.imag], axis=1))
    spectra = np.fft.rfft(basis, 2 * hop, axis=0) * response.conj()[:, None]
    within, after = np.split(np.fft.irfft(spectra, axis=0), 2)
    powers = 2 * np.abs(response[::2]) ** 2 / hop**2
    if hop % 2 == 0:
        powers[-1] /= 2  # All frequencies but the highest count twice. Zero has no power.
    projections = np.concatenate([within + after, after], axis=1) / math.sqrt(hop)
    columns = projections.astype(np.float32, order="F")
    return _Weighting(np.repeat(powers, 2).astype(np.float32), columns)


def _rest_energy(block: Block) -> float:
    hop = block.shape.hop_frames
    rest = block.frames % hop
    if not rest or block.start + block.frames >= MOMENTARY_HOPS * hop:
        return 0.0
    from scipy.signal import sosfilt  # imported here, because only short recordings need it

    stop = block.before + block.frames
    samples = block.around[:, max(0, stop - rest - hop) : stop].astype(np.float64)
    filtered = sosfilt(k_weighting(block.shape.rate_hz), samples, axis=1)[:, -rest:]
    return float(_channel_weights(block.shape.channels) @ np.square(filtered).sum(axis=1))


def _percentile(counts: dict[int, int], share: float) -> int:
    steps = sorted(counts)
    ends = np.cumsum([counts[step] for step in steps])
    rank = math.floor((ends[-1] - 1) * share + 0.5)
    return steps[int(np.searchsorted(ends, rank, side="right"))]


def _channel_weights(channels: int) -> npt.NDArray[np.float64]:
    return np.array(_WEIGHTS.get(channels, [1] * channels), np.float64)


def to_lufs(energy: float) -> float | None:
    """Return the loudness of a mean square after the filters; ``None`` for silence.

    >>> to_lufs(1.0), to_lufs(0.0)
    (-0.691, None)
    """
    return _OFFSET_LUFS + 10 * math.log10(energy) if energy > 0 else None
