"""Views and labels: what a data set's header says, how its rows are split, and its numbers.

`header` and `split_sizes` need neither numpy nor torch, so that planning stays cheap; `load`
and `split_indices` need numpy. Nothing here knows of experts.
"""
