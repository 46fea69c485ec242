"""Supernets: elastic networks, their files, and how the weights of a subnet are cut out of them.

Torch is in `supernet`, `elastic`, `depthwise`, `sorting` and `recalibration`; the rest is numpy.
"""
