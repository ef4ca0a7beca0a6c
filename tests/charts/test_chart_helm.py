"""Both Helms accept the chart, and make the same of it."""

import tarfile
from pathlib import Path

import pytest

from tests.charts.chart_rendering import CHART, CI, HELMS, helm, render, values_of


def test_the_two_helms_are_those_that_are_supported() -> None:
    assert helm("helm3", "version", "--short").out.startswith("v3.17.")
    assert helm("helm4", "version", "--short").out.startswith("v4.3.")


@pytest.mark.parametrize("name", CI)
@pytest.mark.parametrize("helm_name", HELMS)
def test_the_chart_lints_without_a_warning(helm_name: str, name: str) -> None:
    ran = helm(helm_name, "lint", "--strict", str(CHART), "--values", str(CI[name]))
    assert ran.code == 0, ran.out + ran.err
    assert "WARNING" not in ran.out + ran.err


@pytest.mark.parametrize("name", CI)
def test_both_helms_make_the_same_of_the_chart(name: str) -> None:
    old, new = (
        sorted(render(values_of(name), helm_name=helm_name), key=lambda one: (one["kind"], one["metadata"]["name"]))
        for helm_name in HELMS
    )
    assert old == new


def test_the_chart_packs_without_what_only_tests_need(tmp_path: Path) -> None:
    assert helm("helm4", "package", str(CHART), "--destination", str(tmp_path)).code == 0
    (archive,) = tmp_path.glob("longtake-*.tgz")
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    assert "longtake/templates/rayservice.yaml" in names
    assert "longtake/files/fetch_weights.py" in names
    assert not [name for name in names if name.startswith("longtake/ci/")]
