"""`longtake doctor`: what this machine has and lacks for rendering, each with a way to mend it."""

import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import typer

from serving.cli.options import AsJson
from serving.cli.output.terminal import open_facts, print_json, print_table, styled

MIN_FREE_DISK_BYTES = 1 << 30
"""Bytes; `longtake doctor` warns if less disk space than this is free."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warn", "fail"]
    """fail: nothing can be rendered."""
    found: str
    fix: str = ""
    """What to do about it; empty if all is well."""


def doctor(as_json: AsJson = False) -> None:
    """Check that this machine can render; exit code 1 if it cannot."""
    findings = [_examine(check) for check in CHECKS]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _show(findings)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def check_python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")


def check_torch() -> Finding:
    import torch

    return Finding("torch", "ok", str(torch.__version__))


def check_threads() -> Finding:
    import psutil
    import torch

    cores, threads = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1, torch.get_num_threads()
    found = f"{threads} threads on {cores} cores"
    if threads > (psutil.cpu_count() or cores):
        return Finding("threads", "warn", found, "set OMP_NUM_THREADS to the number of cores, or less")
    return Finding("threads", "ok", found)


def check_memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    return Finding("memory", "ok", f"{_gib(memory.available)} of {_gib(memory.total)} available")


def check_gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", "ok", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))
    if find_spec("pynvml") is not None or shutil.which("nvidia-smi") is not None:
        fix = "this torch cannot use the NVIDIA driver; install a CUDA build of torch"
        return Finding("GPU", "warn", "an NVIDIA driver, but torch does not see it", fix)
    return Finding("GPU", "ok", "none: models run on the CPU, which suits pocket; larger models need a GPU")


def check_attention() -> Finding:
    import torch

    from serving.models.devices import default_device
    from sharding.attention import choose_backend

    device = default_device()
    backend = choose_backend(device)
    found = f"{backend.name} in gangs of several ranks"
    doubts = []
    if not backend.verified:
        doubts.append("no GPU has run it")
    if not backend.merge.verified:
        doubts.append(f"{backend.merge.name} passed its trials on this GPU, but no gang has used it on any")
    if device == "cuda" and torch.cuda.device_count() > 1:
        doubts.append("what several GPUs exchange has run on one GPU and on CPUs only")
    if not doubts:
        return Finding("attention", "ok", found)
    fix = "compare a short film of a gang with one of a single GPU, and tell us; see docs/gangs.md"
    return Finding("attention", "warn", f"{found}; unverified: {'; '.join(doubts)}", fix)


def check_xformers() -> Finding:
    """diffusers imports xformers if it is installed, and fails if it was built for another torch."""
    if find_spec("xformers") is None:
        return Finding("xformers", "ok", "not installed, not needed")
    try:
        import_module("xformers.ops")
    except Exception as error:  # a broken native extension may raise anything
        fix = "uninstall xformers, or install the build for this torch; diffusers imports it"
        return Finding("xformers", "warn", f"installed, but broken: {error}", fix)
    return Finding("xformers", "ok", "installed")


def check_encoder() -> Finding:
    import av

    try:
        av.codec.Codec("libx264", "w")
    except ValueError:
        fix = "install PyAV's own wheels: pip install --force-reinstall --only-binary av av"
        return Finding("libx264", "fail", f"not in PyAV {av.__version__}", fix)
    return Finding("libx264", "ok", f"in PyAV {av.__version__}")


def check_pocket() -> Finding:
    from serving.errors import ModelError
    from serving.models.registry import POCKET, open_model

    try:
        open_model(POCKET).load_denoiser()
    except ModelError as error:
        return Finding("pocket", "fail", str(error), "install Longtake again, or check out the whole repository")
    return Finding("pocket", "ok", "loads")


def check_disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    if free < MIN_FREE_DISK_BYTES:
        return Finding("disk", "warn", f"{_gib(free)} free here", f"free at least {_gib(MIN_FREE_DISK_BYTES)}")
    return Finding("disk", "ok", f"{_gib(free)} free here")


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_torch,
    check_threads,
    check_memory,
    check_gpu,
    check_attention,
    check_xformers,
    check_encoder,
    check_pocket,
    check_disk,
)


def _examine(check: Callable[[], Finding]) -> Finding:
    """The finding, also if the check itself breaks: a doctor that crashes on a sick machine is no use."""
    try:
        return check()
    except Exception as error:
        name = check.__name__.removeprefix("check_")
        return Finding(name, "fail", f"{type(error).__name__}: {error}", "install Longtake's dependencies again")


def _show(findings: list[Finding]) -> None:
    table = open_facts()
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for finding in findings:
        table.add_row(styled((finding.state, colours[finding.state])), finding.name, finding.found)
        if finding.fix:
            table.add_row("", "", f"-> {finding.fix}")
    print_table(table)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.1f} GiB"
