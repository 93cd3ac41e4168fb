import pytest
import torch
from torch import nn
from torch.nn import functional

from platform.arms.critic import UNIT, Adversary, Critic, squared_gradient
from platform.arms.options import CriticOptions

CPU = torch.device("cpu")


def pictures(count: int = 4, seed: int = 0) -> torch.Tensor:
    """Lab, (count, 16, 16, 3): the photographs' chroma follows their lightness."""
    generator = torch.Generator().manual_seed(seed)
    lightness = 100 * torch.rand(count, 16, 16, 1, generator=generator)
    return torch.cat((lightness, lightness - 50, 50 - lightness), dim=-1)


def adversary(weight: float = 1.0, **options: int) -> Adversary:
    return Adversary(weight, CriticOptions(**options), lambda outputs: 10 * outputs, CPU, seed=0)


def test_the_gradients_length_by_finite_differences() -> None:
    torch.manual_seed(0)
    critic = Critic(CriticOptions(depth=2)).double()
    lab = pictures(2).double()
    lightness, ab = lab[..., :1].movedim(-1, 1), lab[..., 1:].movedim(-1, 1).requires_grad_()
    found = squared_gradient(critic(lightness, ab), ab)
    expected = torch.zeros(2, dtype=torch.float64)
    step = 1e-4
    for place in range(2 * 16 * 16):
        change = torch.zeros(2, 2 * 16 * 16, dtype=torch.float64)
        change[:, place] = step
        change = change.view_as(ab)
        with torch.no_grad():
            slope = (critic(lightness, ab + change) - critic(lightness, ab - change)) / (2 * step)
        expected += (UNIT * slope) ** 2
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    found.sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in critic.parameters() if parameter.grad is not None)


def test_the_term_is_the_relativistic_one_and_leaves_the_critic_alone() -> None:
    teacher, lab = adversary(0.3), pictures()
    outputs = torch.randn(4 * 16 * 16, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = teacher.loss(lab, outputs, nn.Identity())
    lightness, ab = lab[..., :1].movedim(-1, 1), lab[..., 1:].movedim(-1, 1)
    fake = (10 * outputs).view(4, 16, 16, 2).movedim(-1, 1)
    expected = 0.3 * functional.softplus(teacher.critic(lightness, ab) - teacher.critic(lightness, fake)).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert outputs.grad is not None
    assert float(outputs.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in teacher.critic.parameters())


def test_it_learns_to_tell_photographs_from_pictures_without_colour() -> None:
    teacher = adversary(depth=1)
    losses = []
    for step in range(60):
        lab = pictures(8, seed=step)
        losses.append(float(teacher.loss(lab, torch.zeros(8 * 256, 2), nn.Identity())))
        teacher.step()
    assert losses[-1] > losses[0] + 1  # what the colourizer is charged rises as the critic tells them apart


@pytest.mark.parametrize("acuity", [4, 16])
def test_chroma_is_seen_as_sharply_as_the_acuity_says(acuity: int) -> None:
    torch.manual_seed(0)
    critic = Critic(CriticOptions(depth=2, acuity=acuity))
    lightness, ab = pictures()[..., :1].movedim(-1, 1), pictures()[..., 1:].movedim(-1, 1)
    within = ab.clone()  # swap neighbours within a square
    within[..., 0], within[..., 1] = ab[..., 1], ab[..., 0]
    torch.testing.assert_close(critic(lightness, within), critic(lightness, ab), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(critic(lightness, within.flip(3) + 10), critic(lightness, ab), atol=1e-3)


def test_it_goes_on_from_its_state() -> None:
    def taught(teacher: Adversary, steps: range) -> Adversary:
        for step in steps:
            teacher.loss(pictures(seed=step), torch.full((4 * 256, 2), float(step)), nn.Identity())
            teacher.step()
        return teacher

    whole = taught(adversary(), range(20))
    state = taught(adversary(), range(7)).state_dict()
    resumed = adversary()
    resumed.load_state_dict(state)
    taught(resumed, range(7, 20))
    for first, second in zip(whole.critic.parameters(), resumed.critic.parameters(), strict=True):
        assert torch.equal(first, second)
