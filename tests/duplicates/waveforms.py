"""Waveforms of random sounds, and of their copies."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, rfft

from melmill.transforms.measures.short_waveforms import RATE_HZ, Waveform


def random_sound(seconds: float, seed: int) -> Waveform:
    """Return noise whose level and bands change ten times a second, like speech."""
    random = np.random.default_rng(seed)
    pieces = []
    for _ in range(max(1, round(seconds * 10))):
        spectrum = rfft(random.normal(0, 1, RATE_HZ // 10))
        hz = np.maximum(1, np.arange(len(spectrum)) * 10)
        distances = np.log(hz / random.uniform(100, 1900, (3, 1))) / 0.3
        spectrum *= (10 ** random.uniform(-1, 0, (3, 1)) * np.exp(-(distances**2))).sum(axis=0)
        pieces.append(random.uniform(0.1, 1) * irfft(spectrum, RATE_HZ // 10))
    return as_waveform(np.concatenate(pieces)[: round(seconds * RATE_HZ)])


def white_noise(seconds: float, seed: int) -> Waveform:
    return as_waveform(np.random.default_rng(seed).normal(0, 1, round(seconds * RATE_HZ)))


def as_waveform(sound: np.ndarray) -> Waveform:
    """Return samples of 8 bits, scaled to their peak."""
    return np.rint(sound * (127 / np.abs(sound).max())).astype(np.int8)


def copied(
    waveform: Waveform, lag: float = 0, padding: int = 0, noise: float = 0.1, seed: int = 0
) -> Waveform:
    """Return a copy: later by samples, longer by samples of silence, and with noise."""
    length = len(waveform) + padding
    samples = 2 * length
    spectrum = rfft(waveform.astype(float), samples)
    turns = np.arange(len(spectrum)) * (-2j * np.pi * lag / samples)
    later = irfft(spectrum * np.exp(turns), samples)[:length]
    random = np.random.default_rng(seed)
    return as_waveform(later + noise * later.std() * random.normal(0, 1, length))


def tone(hz: float, phase: float, seconds: float = 1.0, decay_s: float = 1e9) -> Waveform:
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return as_waveform(np.exp(-times / decay_s) * np.sin(2 * np.pi * hz * times + phase))
