"""From YAML text to a `Recipe`, every problem with its place."""
