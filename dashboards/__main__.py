"""`python -m dashboards`: writes the dashboards and rules into the chart, where they are committed."""

from dashboards.written import CHART, written_files


def main() -> None:
    """Writes every file, and removes dashboards and rules that are no more."""
    files = written_files()
    for folder in {path.parent for path in files}:
        folder.mkdir(parents=True, exist_ok=True)
        for old in {*folder.iterdir()} - {*files}:
            old.unlink()
    for path, content in files.items():
        path.write_text(content)
        print(path.relative_to(CHART.parents[1]))


if __name__ == "__main__":
    main()
