import pytest
import torch
from torch import Tensor

from platform.arms.losses import SoftLabels, l2_loss, soft_label_cross_entropy
from platform.color.palettes import grid_palette


def dense_cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor, outputs: Tensor, label_weights: Tensor, pixel_weights: Tensor | None
) -> Tensor:
    """The textbook formula: all logits, all soft targets."""
    log_probabilities = torch.log_softmax(features @ weight.T + bias, dim=1)
    targets = torch.zeros_like(log_probabilities).scatter_add_(1, outputs, label_weights)
    loss = -(targets * log_probabilities).sum(1)
    return (loss if pixel_weights is None else loss * pixel_weights).mean()


def problem(pixels: int, channels: int, bins: str, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    palette = grid_palette(reachable=bins == "reachable")
    heads = len(palette.centers)
    ab = palette.centers[torch.randint(heads, (pixels,), generator=generator)]
    ab = ab + 12 * (torch.rand(pixels, 2, generator=generator) - 0.5)
    outputs, label_weights = palette.soft_labels(ab)
    label_weights = label_weights.to(dtype)
    features = torch.randn(pixels, channels, generator=generator, dtype=dtype)
    weight = torch.randn(heads, channels, generator=generator, dtype=dtype)
    bias = torch.randn(heads, generator=generator, dtype=dtype)
    pixel_weights = torch.rand(pixels, generator=generator, dtype=dtype) * 5
    return (
        features.requires_grad_(),
        weight.requires_grad_(),
        bias.requires_grad_(),
        outputs,
        label_weights,
        pixel_weights,
    )


@pytest.mark.parametrize("bins", ["reachable", "grid"])
@pytest.mark.parametrize("rebalanced", [False, True])
@pytest.mark.parametrize("chunk_pixels", [None, 64, 1000, 5000])
def test_chunked_loss_equals_the_dense_formula(bins: str, rebalanced: bool, chunk_pixels: int | None) -> None:
    features, weight, bias, outputs, label_weights, pixel_weights = problem(3000, 16, bins, torch.float32)
    v = pixel_weights if rebalanced else None
    dense = dense_cross_entropy(features, weight, bias, outputs, label_weights, v)
    chunked = soft_label_cross_entropy(
        features, weight, bias, SoftLabels(outputs, label_weights, v), chunk_pixels=chunk_pixels
    )
    torch.testing.assert_close(chunked, dense, rtol=1e-5, atol=0)
    wanted = (features, weight, bias)
    # The outer factor checks that the incoming gradient is honoured.
    for got, expected in zip(
        torch.autograd.grad(3 * chunked, wanted), torch.autograd.grad(3 * dense, wanted), strict=True
    ):
        assert (got - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("rebalanced", [False, True])
def test_gradients_by_finite_differences(rebalanced: bool) -> None:
    features, weight, bias, outputs, label_weights, pixel_weights = problem(11, 3, "reachable", torch.float64)
    v = pixel_weights if rebalanced else None
    assert torch.autograd.gradcheck(
        lambda x, w, b: soft_label_cross_entropy(x, w, b, SoftLabels(outputs, label_weights, v), chunk_pixels=4),
        (features, weight, bias),
    )


def test_features_of_lower_precision_are_converted_and_get_their_gradient_in_it() -> None:
    features, weight, bias, outputs, label_weights, pixel_weights = problem(3008, 16, "reachable", torch.float32)
    features = features.detach().to(torch.bfloat16).requires_grad_()
    wanted = (features, weight, bias)
    dense = dense_cross_entropy(features.float(), weight, bias, outputs, label_weights, pixel_weights)
    chunked = soft_label_cross_entropy(
        features, weight, bias, SoftLabels(outputs, label_weights, pixel_weights), chunk_pixels=1024
    )
    torch.testing.assert_close(chunked, dense, rtol=1e-5, atol=0)
    features_grad, *head_grads = torch.autograd.grad(chunked, wanted)
    expected_features_grad, *expected_head_grads = torch.autograd.grad(dense, wanted)
    assert features_grad.dtype == torch.bfloat16
    # Both were rounded to 8 bits from float32 numbers that differ in their last digits: seldom to different neighbours.
    assert (features_grad != expected_features_grad).double().mean() < 1e-3
    torch.testing.assert_close(features_grad, expected_features_grad, rtol=2**-7, atol=1e-9)
    for got, expected in zip(head_grads, expected_head_grads, strict=True):
        assert (got - expected).norm() <= 1e-5 * expected.norm()


def test_large_logits_do_not_overflow() -> None:
    features, weight, bias, outputs, label_weights, _ = problem(64, 8, "reachable", torch.float32)
    features = (features.detach() * 1e3).requires_grad_()
    loss = soft_label_cross_entropy(features, weight, bias, SoftLabels(outputs, label_weights))
    torch.testing.assert_close(loss, dense_cross_entropy(features, weight, bias, outputs, label_weights, None))
    assert torch.autograd.grad(loss, features)[0].isfinite().all()


def test_without_gradient_the_value_is_the_same_and_nothing_is_kept() -> None:
    features, weight, bias, outputs, label_weights, _ = problem(500, 8, "reachable", torch.float32)
    with_gradient = soft_label_cross_entropy(features, weight, bias, SoftLabels(outputs, label_weights))
    with torch.no_grad():
        without = soft_label_cross_entropy(features, weight, bias, SoftLabels(outputs, label_weights))
    assert not without.requires_grad
    assert float(without) == float(with_gradient.detach())


def test_l2_is_half_the_pixel_sum_averaged_over_the_batch() -> None:
    predicted = torch.tensor([[[[1.0, 2.0], [0.0, 0.0]]], [[[3.0, 0.0], [0.0, 4.0]]]])
    truth = torch.zeros_like(predicted)
    assert float(l2_loss(predicted, truth)) == pytest.approx((0.5 * 5 + 0.5 * 25) / 2)
