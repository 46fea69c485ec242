"""Measurements of subnets on images: accuracies, BatchNorm statistics, samples for the accuracy predictor."""
