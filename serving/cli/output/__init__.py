"""What commands print and write: tables, JSON and lines, how far a render is, and films."""
