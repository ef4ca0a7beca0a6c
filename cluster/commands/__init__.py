"""What an operator does with a cluster by hand: `longtake cluster ...`."""
