"""Images as observations: the convolutional encoder and the shift that augments training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tdmpc_ray.core.nn.layers import latent_layer, simnorm

IMAGE_SIZE = 64
MAX_SHIFT = 3  # pixels, in each direction
# (kernel, stride) of each convolution, as published.
_CONVOLUTIONS = ((7, 2), (5, 2), (3, 2), (3, 1))


class PixelEncoder(nn.Module):
    """Stacked frames to latents: four convolutions, then SimNorm.

    The features of a 64 x 64 image are the latent itself where their number is `latent_dim`, as in the
    published model of size 5; a projection brings them to the latent's size everywhere else.

    Args:
        channels: of the stacked frames C.
        num_channels: of each convolution.
        latent_dim: Z.
        simnorm_dim: group size of SimNorm; 0: none.
    """

    def __init__(self, channels: int, num_channels: int, latent_dim: int, simnorm_dim: int) -> None:
        super().__init__()
        self.simnorm_dim = simnorm_dim
        self.convolutions = nn.ModuleList()
        self.sizes: list[int] = []  # height and width of what each convolution puts out
        size = IMAGE_SIZE
        for kernel, stride in _CONVOLUTIONS:
            self.convolutions.append(nn.Conv2d(channels, num_channels, kernel, stride))
            channels, size = num_channels, (size - kernel) // stride + 1
            self.sizes.append(size)
        features = num_channels * size**2
        self.projection = None if features == latent_dim else latent_layer(features, latent_dim, simnorm_dim)

    def forward(self, obs: Tensor) -> Tensor:
        """Images (..., C, 64, 64) of 0 to 255 to latents (..., Z)."""
        x = obs.flatten(0, -4).float() / 255 - 0.5
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x if i == 0 else torch.relu(x))
        x = x.flatten(1)
        if self.projection is not None:
            x = self.projection(x)
        elif self.simnorm_dim:
            x = simnorm(x, self.simnorm_dim)
        return x.unflatten(0, obs.shape[:-3])


def draw_shift(shape: Sequence[int], generator: torch.Generator, most: int = MAX_SHIFT) -> Tensor:
    """Shifts for `shift_images`, uniform in [-most, most], (*shape, 2), on the generator's device."""
    limits = (-most, most + 1)
    return torch.randint(*limits, (*shape, 2), generator=generator, device=generator.device)


def shift_images(images: Tensor, shift: Tensor) -> Tensor:
    """Move images by whole pixels; what comes into view repeats the edge.

    Args:
        images: (..., C, H, W).
        shift: down and right, integers, (..., 2).
    """
    height, width = images.shape[-2:]
    flat, offsets = images.flatten(0, -4), shift.flatten(0, -2)
    rows = (torch.arange(height, device=images.device) - offsets[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - offsets[:, 1:]).clamp(0, width - 1)
    image = torch.arange(len(flat), device=images.device)[:, None, None]
    moved = flat[image, :, rows[:, :, None], columns[:, None, :]]  # channels come out last
    return moved.movedim(-1, -3).reshape(images.shape)
