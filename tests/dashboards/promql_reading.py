"""Reads queries as Prometheus would: which series they ask for. What does not parse or type-check raises ValueError."""

import promql_parser as pp


def series_of(expr: str) -> set[str]:
    """Names of all series in an expression without variables."""
    found: set[str] = set()

    def note(part: pp.Expr) -> None:
        if isinstance(part, pp.VectorSelector):
            found.add(part.name or "")

    pp.walk(pp.parse(expr), note)
    return found
