"""Tests of survey results: pure functions of arrays. Participants are the unit: the answers of one go together."""

import warnings
from dataclasses import dataclass

import numpy as np
import statsmodels.api as sm


@dataclass(frozen=True)
class Difference:
    """A difference between two shares, its 95 % confidence interval, and the p-value that there is none (two-sided)."""

    difference: float
    low: float
    high: float
    p_value: float


def share_difference(picked: np.ndarray, second: np.ndarray, participant: np.ndarray) -> Difference:
    """By how much the share of `picked` is higher in the second arm than in the first.

    picked, second: bool (answers,); participant: int (answers,), at least two different ones. A linear probability
    model with standard errors robust to clusters of answers by one participant (Liang & Zeger 1986), and t with the
    number of participants less one. Unlike a logit it is defined where an arm was always or never picked. Where all
    standard errors are zero the p-value is 1 for no difference and 0 for one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 where nothing varies
        fit = sm.OLS(picked.astype(float), sm.add_constant(second.astype(float))).fit(
            cov_type="cluster", cov_kwds={"groups": participant}, use_t=True
        )
        difference, p_value = float(fit.params[1]), float(fit.pvalues[1])
        low, high = (float(limit) for limit in fit.conf_int()[1])
    if not fit.bse[1] > 1e-9:  # zero but for rounding
        return Difference(difference, difference, difference, 1.0 if abs(difference) < 1e-12 else 0.0)
    return Difference(difference, low, high, p_value)
