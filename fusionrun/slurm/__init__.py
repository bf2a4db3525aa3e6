"""Slurm: settings to script text, and what the scheduler answers."""
