"""How each score is called and printed: one line per score, and tables and figures read it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    words: str
    unit: str  # "" for plain numbers
    factor: float  # from the stored value to that unit
    form: str  # as for format(), of the value in its unit
    higher_is_better: bool | None  # None where neither is

    @property
    def heading(self) -> str:
        return f"{self.words} ({self.unit})" if self.unit else self.words

    def in_unit(self, value: float | None) -> float | None:
        """A stored value, or the error of one, in this score's unit; None where nothing was measured."""
        return None if value is None else self.factor * value

    def write(self, value: float | None, spread: float | None = None) -> str:
        """A stored value in this score's unit, as text without the unit, with what it varies by; "–" for None."""
        if value is None:
            return "–"
        written = format(self.factor * value, self.form)
        return written if spread is None else f"{written} ± {self.factor * spread:{self.form}}"


JURY = "picked_as_real_by_jury"  # a machine's word, see `jury`: of trials that it has judged


SCORES = {
    "loss": Score("loss", "", 1.0, ".4g", False),  # its unit differs between kinds of arm and with λ
    "bin_accuracy": Score("bin accuracy", "%", 100.0, ".2f", True),
    "balanced_bin_accuracy": Score("class-balanced bin accuracy", "%", 100.0, ".2f", True),
    "information": Score("information", "nats per pixel", 1.0, ".3f", True),
    "exact_accuracy": Score("exact accuracy", "%", 100.0, ".3f", True),
    "raw_auc": Score("AuC", "%", 100.0, ".1f", True),
    "rebalanced_auc": Score("rebalanced AuC", "%", 100.0, ".1f", True),
    "delta_e_2000": Score("colour error", "ΔE2000", 1.0, ".2f", False),
    "psnr_db": Score("PSNR", "dB", 1.0, ".2f", True),
    "colourfulness_ratio": Score("colourfulness", "photographs = 1", 1.0, ".2f", None),
    JURY: Score("picked as real by the jury, a machine", "%", 100.0, ".1f", True),
}
"""By the names under which `evaluation` reports them and the database stores them."""
