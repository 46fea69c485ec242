"""Subnets measured on images: accuracies, BatchNorm statistics, and the accuracy predictor's samples."""
