"""Faults on purpose, and a verifier that knows nothing of the trainer.

victim      the real job in a process of its own, killed at a boundary of its file operations
verifier    what an undisturbed run leaves, told from files alone
campaign    many faults, counted: `python -m tests.faults --help`
"""
