"""How what is measured is called and written: one place for all figures and tables."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """heading: with its unit. factor: from the database's value to that unit. form: as for format(). higher_is_better:
    None where neither is."""

    heading: str
    factor: float
    form: str
    higher_is_better: bool | None

    def written(self, value: float) -> str:
        """A value of the database in this measure's unit."""
        return format(self.factor * value, self.form)


MEASURES = {
    "loss": Measure("loss", 1.0, ".4g", False),
    "bin_accuracy": Measure("bin accuracy (%)", 100.0, ".2f", True),
    "balanced_bin_accuracy": Measure("class-balanced bin accuracy (%)", 100.0, ".2f", True),
    "exact_accuracy": Measure("exact accuracy (%)", 100.0, ".3f", True),
    "raw_auc": Measure("AuC (%)", 100.0, ".1f", True),
    "rebalanced_auc": Measure("rebalanced AuC (%)", 100.0, ".1f", True),
    "delta_e_2000": Measure("colour error (ΔE2000)", 1.0, ".2f", False),
    "psnr_db": Measure("PSNR (dB)", 1.0, ".2f", True),
    "colourfulness_ratio": Measure("colourfulness (photographs = 1)", 1.0, ".2f", None),
}
"""By the names of db.schema.SCORE_NAMES, and the loss, whose unit differs between kinds of model and with λ."""
