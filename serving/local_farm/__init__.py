"""`longtake up`: a farm on this machine, as a program of its own."""
