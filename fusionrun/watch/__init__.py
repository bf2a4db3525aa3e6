"""Looking at runs: how they stand, why, what they say. It reads, and changes nothing."""
