"""The training losses: L2 on ab, and the soft-label cross-entropy, plain or rebalanced."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Whole images of 1024 pixels: 4 of 167 bins or 2 of 400 at a time were fastest on two cores with 1 MB of second-level
# and 32 MB of third-level cache. A GPU wants long kernels.
CPU_CHUNK_LOGITS = 800 * 1024
GPU_CHUNK_PIXELS = 1 << 18
DENSE_CHUNK_PIXELS = 4096


def l2_loss(ab_predicted: Tensor, ab: Tensor) -> Tensor:
    """Return ½ Σ ‖ab − âb‖² over the pixels of an image, averaged over the batch.

    Both (n, height, width, 2) in Lab units.
    """
    return 0.5 * (ab_predicted - ab).square().sum() / len(ab)


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """Z of some pixels, and what their loss is made of beside it."""

    entries: Tensor  # int64 (pixels, k): the non-zero entries of Z, k of them at most
    weights: Tensor  # float (pixels, k): Z there, Σ = 1 for each pixel
    pixel_weights: Tensor | None = None  # v, float (pixels,); None for plain classification, v = 1


def soft_label_cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor, labels: SoftLabels, *, chunk_pixels: int | None = None
) -> Tensor:
    """Return the mean over pixels of v · (− Σ_q Z_q log Ẑ_q), with Ẑ = softmax(features weightᵀ + bias).

    features: (pixels, channels), of the weights' precision or less: a chunk of them is converted at a time, and their
    gradient comes back in theirs. weight: (heads, channels). bias: (heads,).

    The head, the softmax and all gradients are computed together, chunk by chunk, so that a chunk's logits
    (chunk_pixels x heads) stay in the processor's cache and the whole tensor of logits never exists. Equal to
    the dense formula, to rounding. Differentiable once, in features, weight and bias.
    """
    if chunk_pixels is None:
        chunk_pixels = GPU_CHUNK_PIXELS
        if features.device.type == "cpu":
            chunk_pixels = cpu_chunk_pixels(len(weight))
    # Asked here, as a Function's forward cannot tell: in it gradients are never enabled, and its inputs want them even
    # under no_grad.
    wants_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (features, weight, bias))
    loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        features, weight, bias, labels, chunk_pixels, wants_gradient
    )
    return loss


def dense_cross_entropy(head: nn.Module, features: Tensor, labels: SoftLabels) -> Tensor:
    """Return the same loss of any head that maps features (pixels, channels) to logits (pixels, entries), by autograd,
    chunk by chunk."""
    chunk = DENSE_CHUNK_PIXELS if features.device.type == "cpu" else len(features)
    total = features.new_zeros(())
    for start in range(0, len(features), chunk):
        part = slice(start, start + chunk)
        logits, entries, weights = head(features[part]), labels.entries[part], labels.weights[part]
        loss = logits.logsumexp(1) - (logits.gather(1, entries) * weights).sum(1)
        total = total + (loss if labels.pixel_weights is None else loss * labels.pixel_weights[part]).sum()
    return total / len(features)


def cpu_chunk_pixels(heads: int) -> int:
    """How many pixels are computed at a time on a CPU, whole images of 1024."""
    return 1024 * max(1, CPU_CHUNK_LOGITS // (1024 * heads))


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: SoftLabels,
        chunk_pixels: int,
        wants_gradient: bool,
    ) -> Tensor:
        pixels, pixel_weights = len(features), labels.pixel_weights
        if wants_gradient:
            features_grad = torch.empty_like(features)
            weight_grad = torch.zeros_like(weight)
            bias_grad = torch.zeros_like(bias)
        # Logits to base 2, as MKL's exp takes four times as long as exp2 on AMD's processors, and the same on Intel's.
        weight_2, bias_2 = weight / math.log(2), bias / math.log(2)
        loss = torch.zeros((), dtype=torch.float64, device=features.device)
        for start in range(0, pixels, chunk_pixels):
            part = slice(start, start + chunk_pixels)
            x, index, z = features[part].to(weight.dtype), labels.entries[part], labels.weights[part]
            logits = _head(x, weight_2, bias_2)
            logits -= logits.amax(1, keepdim=True)
            labelled = (logits.gather(1, index) * z).sum(1, keepdim=True)
            exponentials = logits.exp2_()
            total = exponentials.sum(1, keepdim=True)
            v = 1 if pixel_weights is None else pixel_weights[part, None]
            loss += ((total.log2() - labelled) * v).sum(dtype=torch.float64)
            if wants_gradient:
                # The logits' gradient is (Ẑ − Z) v / pixels; what a pixel's entries have in common is multiplied in
                # later, into the shorter rows of x and of its gradient.
                gradient = exponentials.scatter_add_(1, index, z * -total)
                scale = v / (pixels * total)
                x_grad, chunk_weight_grad = _head_gradients(gradient, x * scale, weight)
                torch.mul(x_grad, scale, out=features_grad[part])
                weight_grad += chunk_weight_grad
                # In groups, as sums of single products one after another lose digits.
                groups = _AS_IMAGES if len(x) % _AS_IMAGES == 0 else 1
                bias_grad += (scale.view(groups, 1, -1) @ gradient.view(groups, -1, len(bias))).sum((0, 1))
        if wants_gradient:
            ctx.save_for_backward(features_grad, weight_grad, bias_grad)
        return (loss * (math.log(2) / pixels)).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        features_grad, weight_grad, bias_grad = ctx.saved_tensors
        return grad_output * features_grad, grad_output * weight_grad, grad_output * bias_grad, *[None] * 3


# On a CPU PyTorch computes products of float32 matrices by MKL, which has no AVX-512 for AMD's processors, but
# convolutions of 16 images and more by oneDNN, which has: 1.8 times as fast for these shapes. A pixel's head is a 1x1
# convolution. Without AVX-512 that is as good or better for the logits (40 to 65 GFLOP/s per core, products 20 to 55);
# for the gradients products are twice as fast (55 to 77 GFLOP/s per core, convolutions 21 to 36).
_AS_IMAGES = 16
_GRADIENTS_BY_CONVOLUTION = bool(torch.cpu.get_capabilities().get("avx512_f"))


def _head(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x weightᵀ + bias, (pixels, heads)."""
    if x.device.type != "cpu":
        return torch.addmm(bias, x, weight.T)
    return _rows(torch.conv2d(_images(x), weight[:, :, None, None], bias))


def _head_gradients(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradient weight and gradientᵀ x."""
    if x.device.type != "cpu" or not _GRADIENTS_BY_CONVOLUTION:
        return gradient @ weight, gradient.T @ x
    x_grad, weight_grad, _ = torch.ops.aten.convolution_backward(
        _images(gradient), _images(x), weight[:, :, None, None],
        bias_sizes=None, stride=[1, 1], padding=[0, 0], dilation=[1, 1], transposed=False, output_padding=[0, 0],
        groups=1, output_mask=[True, True, False],
    )  # fmt: skip
    return _rows(x_grad), weight_grad[:, :, 0, 0]


def _images(rows: Tensor) -> Tensor:
    """View rows (pixels, channels) as images, channels last; as one image where their number does not divide."""
    count = _AS_IMAGES if len(rows) % _AS_IMAGES == 0 else 1
    return rows.view(count, len(rows) // count, 1, -1).permute(0, 3, 1, 2)


def _rows(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])
