"""The front end as a module of PyTorch."""

from __future__ import annotations

from typing import Any

import torch

from melmill.pipelines.layers.computing import compute
from melmill.pipelines.layers.front_end import FrontEnd, constants


class _Operations:
    """The functions of ``keras.ops`` in PyTorch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def take(self, x: Any, indices: Any, axis: int) -> Any:
        if axis == 0:
            return x[indices]
        return x[:, indices]

    def rfft(self, x: Any, fft_length: int) -> tuple[Any, Any]:
        spectrum = torch.fft.rfft(x, n=fft_length)
        return spectrum.real, spectrum.imag

    def maximum(self, x: Any, y: Any) -> Any:
        return torch.maximum(x, y) if isinstance(y, torch.Tensor) else torch.clamp(x, min=y)

    def max(self, x: Any, axis: tuple[int, ...]) -> Any:
        return torch.amax(x, axis, keepdim=True)

    def sum(self, x: Any, axis: int) -> Any:
        return torch.sum(x, axis, keepdim=True)

    def mean(self, x: Any, axis: int) -> Any:
        return torch.mean(x, axis, keepdim=True)

    def arange(self, n: int) -> Any:
        return torch.arange(n, device=self._device)

    def cast(self, x: Any, dtype: Any) -> Any:
        return x.to(dtype)


class TorchFrontEnd(torch.nn.Module):
    """Log-mel features of chunks: samples [chunks, chunk_samples] to [chunks, bands, frames].

    Parameters
    ----------
    front_end
        The constants.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.front_end = front_end
        for name, array in constants(front_end).items():
            # The recipe decides them, so they are not in a state_dict.
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def forward(self, samples: Any, valid_samples: Any = None) -> Any:
        """Return the features of a batch; see :func:`melmill.layer`."""
        arrays = {name: getattr(self, name) for name in constants(self.front_end)}
        return compute(self.front_end, _Operations(samples.device), arrays, samples, valid_samples)

    def extra_repr(self) -> str:
        """Return what the module's repr shows."""
        return f"sample_rate_hz={self.front_end.sample_rate_hz}, shape={self.front_end.shape}"
