"""From a `Recipe` to a `Plan`: every value resolved, each with its reason. No torch."""
