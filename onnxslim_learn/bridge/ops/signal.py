"""Fourier transforms of real numbers ``[..., 1]`` or of complex ones ``[..., 2]``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnxslim_learn.bridge.ops.kinds import Plain, single


def _complex(x: Tensor) -> Tensor:
    return (
        torch.view_as_complex(x.contiguous())
        if x.shape[-1] == 2
        else x[..., 0].to(torch.promote_types(x.dtype, torch.complex64))
    )


def dft(
    x: Tensor,
    size: Plain = None,
    at: Plain = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
    opset: int = 17,
) -> Tensor:
    """DFT."""
    along = (single(at) if at is not None else axis if opset < 20 else -2) % x.ndim
    signal = _complex(x)
    if inverse and onesided:
        real: Tensor = torch.fft.irfft(signal, size, along)
        return real[..., None]
    spectrum = torch.fft.ifft(signal, size, along) if inverse else torch.fft.fft(signal, size, along)
    if onesided:
        spectrum = spectrum.narrow(along, 0, spectrum.shape[along] // 2 + 1)
    return torch.view_as_real(spectrum).to(x.dtype)


def stft(x: Tensor, step: Plain, window: Tensor | None = None, length: Plain = None, *, onesided: int = 1) -> Tensor:
    """STFT: frames that fit, weighted by a window."""
    size = length or (x.shape[-2] if window is None else window.shape[0])
    frames = _complex(x).unfold(1, size, step)
    weighted = frames if window is None else frames * window
    spectrum = torch.fft.fft(weighted, dim=-1)
    return torch.view_as_real(spectrum.narrow(-1, 0, size // 2 + 1) if onesided else spectrum).to(x.dtype)


TABLE: dict[str, Callable[..., Any]] = {"DFT": dft, "STFT": stft}
