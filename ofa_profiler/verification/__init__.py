"""Whole networks, predicted and measured."""
