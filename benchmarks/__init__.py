"""fusionrun against real peers: `python -m benchmarks`."""
