"""The recipe's shape: frozen, strict, closed pydantic models. No torch, no files."""
