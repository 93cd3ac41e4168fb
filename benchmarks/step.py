"""Where the time of a training step goes."""

from collections import defaultdict

from torch.profiler import ProfilerActivity, profile

from benchmarks.harness import figure, goal, table
from platform.arms.compose import compose
from platform.arms.options import ArmOptions
from platform.color.counts import count_colours
from platform.data.datasets import load_dataset
from platform.model.hyperparameters import Hyperparameters
from platform.model.training import train

TEXT = """\
## Where the time of a training step goes

PyTorch's profile of an epoch of `platform.model.training.train`: classification with λ = 0.5, 167 bins, filter size 3,
batch 64, AdamW, `precision: auto`; one image of each split is looked at. Each share is of the time that the profiler
saw, spent in an operator itself and not in those it calls; "what is left" are all below the smallest that is named.
"""

PRODUCTS = ("convolution", "mm", "mv", "linear", "dot")
NAMED = 12


def section(tiny: bool) -> list[str]:
    count, batch, widths = (32, 16, (8,)) if tiny else (512, 64, (24, 32, 64))
    lines = [TEXT]
    shares = {width: _shares(width, count, batch) for width in widths}
    largest = max((share[name], name) for share in shares.values() for name in share if name != _PRODUCTS)
    first = shares[widths[0]]
    names = sorted(first, key=lambda name: (name != _PRODUCTS, -first[name]))[:NAMED]
    rows = [[name, *(_percent(shares[width].get(name, 0)) for width in widths)] for name in names]
    rest = [sum(share for name, share in shares[width].items() if name not in names) for width in widths]
    lines += table(["part", *(f"width {width}" for width in widths)], [*rows, ["what is left", *map(_percent, rest)]])
    lines += [
        "",
        goal(
            f"percent of a step that `{largest[1]}` takes, the largest that is neither convolution nor matrix product",
            [100 * largest[0]],
            at_most=20,
        ),
    ]
    return lines


_PRODUCTS = "convolutions and matrix products, forward and backward"


def _percent(share: float) -> str:
    return f"{figure(100 * share, 2)} %"


def _shares(width: int, count: int, batch: int) -> dict[str, float]:
    data = load_dataset(["photos"], train_images=count, tuning_images=1, validation_images=1, say=lambda _: None)
    arms = {"rebalanced": ArmOptions(kind="classification", rebalancing=0.5)}
    task = compose(arms, "rebalanced", count_colours(data.train_images, data.train_labels, len(data.class_names)))
    epochs = train(task, Hyperparameters(learning_rate=1e-3, epochs=2, width=width, batch_size=batch), data)
    next(epochs)  # the first steps set up oneDNN's primitives
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        next(epochs)
    times: defaultdict[str, float] = defaultdict(float)
    for event in recorded.key_averages():
        name = event.key.removeprefix("aten::")
        product = event.key.startswith("aten::") and any(part in name for part in PRODUCTS)
        times[_PRODUCTS if product else name] += event.self_cpu_time_total
    total = sum(times.values())
    return {name: time / total for name, time in times.items()}
