"""The farm's processes on Ray: named actors, gangs, workers, the ports by which they reach each other."""
