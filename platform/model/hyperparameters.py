"""What a training depends on beside its arm and the data."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Optimizer = Literal["sgd", "adam", "adamw", "rmsprop", "muon"]
Schedule = Literal["cosine", "one_cycle"]
Precision = Literal["auto", "float32", "bfloat16"]

_Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Hyperparameters:
    learning_rate: Annotated[float, Field(gt=0)]  # the schedule's highest
    epochs: _Count
    filter_size: Literal[3, 5, 7] = 3  # pixels
    width: _Count = 24  # channels at full size
    depth: Annotated[int, Field(ge=1, le=5)] = 3  # how many times the encoder halves a picture
    optimizer: Optimizer = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01  # of filters, not of shifts and scales
    batch_size: _Count = 32  # images
    schedule: Schedule = "one_cycle"
    precision: Precision = "auto"  # bfloat16 where the processor multiplies it natively
    seed: int = 0
