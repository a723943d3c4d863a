"""The Redis edge: it has no Django, and its arguments and results are values of `logic`."""
