"""What tests and benchmarks share: real farms and ranks in processes of their own, private servers, faults, records."""
