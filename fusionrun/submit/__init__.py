"""Handing a run to whoever carries it out, and what is decided when an attempt has ended.

Torch-free: the machine that submits, and the batch script around the training, need none of it.
"""
