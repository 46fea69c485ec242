"""Supernets: elastic networks, their files, and the extraction of the weights of a subnet.

Torch is used in `supernet`, `elastic`, `depthwise`, `sorting` and `recalibration`; the rest is numpy.
"""
