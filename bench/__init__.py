"""What a request costs: Bicorn and its peers, measured in one run on the same work.

`python -m bench` runs everything; bench/README.md says how to read it and how to look deeper.
"""
