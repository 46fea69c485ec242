"""Rewriting: the same network with some of its operators written in another form, which can be faster.

Each pattern has a file, which says why its form exists. Whether a form is faster depends on device, runtime and
network, so `measuring/rewrite.py` measures it there.
"""
