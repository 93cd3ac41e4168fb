"""The training losses: L2 on ab, and the soft-label cross-entropy, plain or rebalanced."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def l2_loss(ab_predicted: Tensor, ab: Tensor) -> Tensor:
    """Return ½ Σ ‖ab − âb‖² over the pixels of an image, averaged over the batch.

    Both (n, height, width, 2) in Lab units.
    """
    return 0.5 * (ab_predicted - ab).square().sum() / len(ab)


def soft_label_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    outputs: Tensor,
    label_weights: Tensor,
    pixel_weights: Tensor | None = None,
    *,
    chunk_pixels: int | None = None,
) -> Tensor:
    """Return the mean over pixels of v · − Σ_q Z_q log Ẑ_q, with Ẑ = softmax(features weightᵀ + bias).

    features: (pixels, channels). weight: (heads, channels). bias: (heads,).
    outputs, label_weights: (pixels, k), the non-zero entries of Z, k of them at most; Σ label_weights = 1 a pixel.
    pixel_weights: v, (pixels,), or None for plain classification (v = 1).

    The head, the softmax and all gradients are computed together, chunk by chunk, so that a chunk's logits
    (chunk_pixels x heads) stay in the processor's cache and the whole tensor of logits never exists. Equal to
    the dense formula, to rounding. Differentiable once, in features, weight and bias.
    """
    if chunk_pixels is None:
        # 1024 x 167 float32 logits are two thirds of a megabyte, within a core's second-level cache; a GPU wants long
        # kernels.
        chunk_pixels = 1024 if features.device.type == "cpu" else 1 << 18
    loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        features, weight, bias, outputs, label_weights, pixel_weights, chunk_pixels
    )
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        outputs: Tensor,
        label_weights: Tensor,
        pixel_weights: Tensor | None,
        chunk_pixels: int,
    ) -> Tensor:
        pixels = len(features)
        wants_gradient = any(ctx.needs_input_grad[:3])
        if wants_gradient:
            features_grad = torch.empty_like(features)
            weight_grad = torch.zeros_like(weight)
            bias_grad = torch.zeros_like(bias)
        loss = torch.zeros((), dtype=torch.float64, device=features.device)
        buffer = features.new_empty((min(chunk_pixels, pixels), len(weight)))
        for start in range(0, pixels, chunk_pixels):
            part = slice(start, start + chunk_pixels)
            x, index, z = features[part], outputs[part], label_weights[part]
            logits = torch.addmm(bias, x, weight.T, out=buffer[: len(x)])
            labelled = (logits.gather(1, index) * z).sum(1)
            highest = logits.amax(1, keepdim=True)
            exponentials = logits.sub_(highest).exp_()
            total = exponentials.sum(1, keepdim=True)
            pixel_loss = (highest + total.log()).squeeze(1) - labelled
            v = None if pixel_weights is None else pixel_weights[part, None]
            loss += (pixel_loss if v is None else pixel_loss * v.squeeze(1)).sum(dtype=torch.float64)
            if wants_gradient:
                scale = 1 / pixels if v is None else v / pixels
                gradient = exponentials.mul_(scale / total).scatter_add_(1, index, z * -scale)
                torch.mm(gradient, weight, out=features_grad[part])
                weight_grad.addmm_(gradient.T, x)
                bias_grad += gradient.sum(0)
        if wants_gradient:
            ctx.save_for_backward(features_grad, weight_grad, bias_grad)
        return (loss / pixels).to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        features_grad, weight_grad, bias_grad = ctx.saved_tensors
        return grad_output * features_grad, grad_output * weight_grad, grad_output * bias_grad, None, None, None, None
