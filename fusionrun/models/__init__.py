"""Torch modules. They take flat keyword sizes and never see a recipe or a plan."""
