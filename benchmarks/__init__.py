"""Programs that measure: `python -m benchmarks.NAME`. RESULTS.md has what they found."""
