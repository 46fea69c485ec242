"""Reports as HTML: one file that opens in a browser without a server or internet.

`page.py` is what a report consists of and how it is written, `charts.py` draws. They know nothing about what they show.
"""
