"""Corrections: methods to predict the time of a network from the times of its isolated ops, one per file."""

from ofa_profiler.tables.corrections.base import Correction, OpMs, read_correction, register_correction
from ofa_profiler.tables.corrections.regression import Regression, fit_regression
from ofa_profiler.tables.corrections.sum import Sum

__all__ = ["Correction", "OpMs", "Regression", "Sum", "fit_regression", "read_correction", "register_correction"]

register_correction(Sum)
register_correction(Regression)
