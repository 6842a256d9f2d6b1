"""The rules of the join once more, for whole columns of plain binary events at once.

Whatever is done here :mod:`joining`, :mod:`horizons`, :mod:`contributions` and :mod:`sums` do for one event; tests
hold the two against each other.
"""
