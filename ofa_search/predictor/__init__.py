"""Accuracy predictors: architectures -> top-1 accuracy in [0, 1], in numpy alone."""

from ofa_search.predictor.features import Features
from ofa_search.predictor.mlp import AccuracyPredictor
from ofa_search.predictor.quality import Metrics, metrics

__all__ = ["AccuracyPredictor", "Features", "Metrics", "metrics"]
