"""Whatever users wrote, no command prints a control character; whatever the terminal can write, no command fails."""

import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cluster.contract.plain_text import make_plain
from serving.cli.client import farm_client
from serving.cli.commands import app

JOB = "job_" + "0" * 22
KEY = "key_" + "0" * 22
HOSTILE = "\x1b[31mred\x1b]0;pwned\x07\x1b[2J\n\r\u202e\x9b[bold]\ud800 \u2028🎉"
LONGTAKE = Path(sys.executable).parent / "longtake"

COMMANDS = [
    ["jobs"], ["show", JOB], ["explain", JOB], ["logs", JOB], ["watch", JOB], ["cancel", JOB], ["versions", JOB],
    ["diff", JOB], ["submit", "board.yaml"], ["submit", "board.yaml", "--wait"], ["quote", "board.yaml"], ["usage"],
    ["usage", "--job", JOB], ["keys", "list"], ["keys", "create", "--tenant", "a"], ["tenants", "list"],
    ["tenants", "set", "a"], ["webhooks", "list"], ["webhooks", "deliveries", "hook_1"],
]  # fmt: skip


class WrittenByOthers:
    """A farm whose every text is the one that somebody wrote."""

    def __init__(self) -> None:
        self.text = ""
        self.refuses = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.refuses:
            problems = [{"path": self.text, "message": self.text, "value": self.text, "nearest": self.text}]
            return self._answer({"detail": self.text, "code": self.text, "problems": problems}, 422)
        if request.url.path.endswith("/events"):
            return httpx.Response(204)
        return self._answer(self._found(request.url.path))

    def _answer(self, value: Any, status: int = 200) -> httpx.Response:
        return httpx.Response(status, content=json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def _found(self, path: str) -> Any:
        lists = {
            "/v1/jobs": [self.job()],
            f"/v1/jobs/{JOB}/versions": [self.job()],
            f"/v1/jobs/{JOB}/logs": [self.log_line()],
            "/v1/usage": [{"tenant": self.text, "take": self.text, "shot": self.text, **self.cost()}],
            "/v1/keys": [self.key()],
            "/v1/tenants": [self.tenant()],
            "/v1/webhooks": [{"id": self.text, "url": self.text, "enabled": True, "created_at": 1.0}],
            "/v1/webhooks/hook_1/deliveries": [self.delivery()],
        }
        other: dict[str, dict[str, Any]] = {
            f"/v1/jobs/{JOB}/explain": {"words": self.text},
            f"/v1/jobs/{JOB}/diff": {
                "changes": [{"path": self.text, "before": self.text, "after": self.text}],
                "takes": [{"key": self.text, "change": self.text}],
            },
            "/v1/quote": {
                "seconds": 1.0, "takes": [self.price(), self.price()], "calls": 2, "finishes_at": None,
                "due_feasible": None, **self.cost(),
            },
            "/v1/tenants/a": self.tenant(),
        }  # fmt: skip
        found = other.get(path) or self.job()
        return {**self.key(), **found, "data": lists.get(path), "has_more": False, "first_id": JOB, "last_id": JOB}

    def cost(self) -> dict[str, float]:
        return {"gpu_seconds": 1.0, "wasted_gpu_seconds": 0.5, "usd": 0.5}

    def key(self) -> dict[str, Any]:
        return {
            "id": KEY,
            "secret": self.text,
            "tenant": self.text,
            "name": self.text,
            "created_at": 1.0,
            "revoked_at": 2.0,
        }

    def tenant(self) -> dict[str, Any]:
        limits = ("max_concurrent_jobs", "max_concurrent_calls", "requests_per_minute")
        return {"name": self.text, "weight": 1.0, **dict.fromkeys(limits, 1)}

    def price(self) -> dict[str, Any]:
        return {"key": self.text, "shots": [self.text], "cached": False, "calls": 1, **self.cost()}

    def log_line(self) -> dict[str, Any]:
        return {"at": 1.0, "level": self.text, "message": self.text, "fields": {"take": self.text, "times": 2}}

    def delivery(self) -> dict[str, Any]:
        times = {"created_at": 1.0, "delivered_at": None, "due_at": 2.0}
        return {"type": self.text, "job": self.text, "attempts": 1, "error": self.text, **times}

    def job(self) -> dict[str, Any]:
        take = {
            "key": self.text, "shots": [self.text], "status": "rendering", "progress": 1.0, "calls": 2, "calls_done": 1,
            "latents": 2, "latents_finished": 1, "frames": 2, "frames_decoded": 0, "cached": False, "retries": 1,
            "cost": self.cost(),
        }  # fmt: skip
        return {
            "id": JOB, "title": self.text, "version": 2, "parent": self.text, "tenant": self.text, "status": "failed",
            "reason": self.text, "error": {"code": self.text, "message": self.text}, "progress": 1.0, "priority": 1,
            "takes": [take, take], "cost": self.cost(), "budget_usd": 1.0, "due_at": 1.0, "at_risk": True, "eta": None,
            "created_at": 1.0, "started_at": 1.0, "finished_at": 2.0, "film": None, "pool": self.text,
            "model": self.text, "tags": {self.text: self.text},
        }  # fmt: skip


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WrittenByOthers:
    found = WrittenByOthers()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "board.yaml").write_text("version: 1\nshots: [{prompt: a red ball, seconds: 1}]\n")
    monkeypatch.setenv("LONGTAKE_URL", "http://farm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(
        farm_client, "FarmClient", partial(farm_client.FarmClient, transport=httpx.MockTransport(found))
    )
    return found


def control_characters(text: str) -> set[str]:
    return {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") and letter != "\n"}


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code in (0, 1), result.output
    return result.output


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(HOSTILE)
@given(st.text(st.characters(categories=["Cc", "Cf", "Cs", "L", "Zs", "Zl", "So"]), min_size=1, max_size=20))
def test_no_command_prints_a_control_character_of_a_user(farm: WrittenByOthers, text: str) -> None:
    farm.text = text
    for command in COMMANDS:
        assert not control_characters(printed(*command)), command
        assert not control_characters(printed(*command, "--json")), command


def test_a_title_stays_one_row_of_a_table(farm: WrittenByOthers) -> None:
    farm.text = "one\ntwo\ttabs"
    assert [line.split()[1] for line in printed("jobs").splitlines() if JOB[-8:] in line] == [
        "one\\u000atwo\\u0009tabs"
    ]


def test_what_is_printed_as_json_is_what_the_farm_said(farm: WrittenByOthers) -> None:
    farm.text = HOSTILE
    assert json.loads(printed("show", JOB, "--json"))["title"] == HOSTILE
    assert "🎉" in printed("show", JOB, "--json")


@given(st.text(st.characters(exclude_characters='"\\')))
def test_plain_text_holds_all_that_was_written(text: str) -> None:
    plain = make_plain(text)
    assert not control_characters(plain)
    assert "\n" not in plain
    assert json.loads(f'"{plain}"').encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")


def test_refusals_are_printed_without_control_characters(
    farm: WrittenByOthers, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.cli.main import main

    farm.text, farm.refuses = HOSTILE, True
    for arguments in (
        ["jobs"],
        ["submit", "board.yaml"],
        ["plan", "no\x1b[31m.yaml"],
        ["render", "x", "-o", "\x07.mov"],
    ):
        monkeypatch.setattr(sys, "argv", ["longtake", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        told = capfd.readouterr()
        assert told.err.startswith("longtake: ")
        assert not control_characters(told.out + told.err)


@pytest.mark.parametrize("arguments", [["plan", "board.yaml"], ["plan", "board.yaml", "--json"], ["models"]])
def test_output_that_is_not_utf8_has_replaced_characters(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "board.yaml").write_text('version: 1\ntitle: "Fête 🎉"\nshots: [{prompt: a red ball, seconds: 1}]\n')
    result = subprocess.run(
        [str(LONGTAKE), *arguments],
        cwd=tmp_path,
        env={**os.environ, "LONGTAKE_HOME": str(tmp_path / "home"), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    text = result.stdout.decode("ascii")
    if "--json" in arguments:
        assert json.loads(text)["title"] == "Fête 🎉"


def test_on_a_terminal_only_our_own_styles_reach_it(tmp_path: Path) -> None:
    script = (
        "from serving.cli.output.terminal import *\n"
        f"text = {HOSTILE!r}\n"
        "set_up_streams(); table = open_table('job'); add_words_column(table, 'title')\n"
        "table.add_row(styled((text, 'red')), cut_words(text)); table.add_row(text, text); print_table(table)\n"
        "print_line(text); tell(text); warn(text); print_json({'a': text})\n"
    )
    shown = "".join(_on_a_terminal([sys.executable, "-c", script]))
    assert "\x1b[31m" in shown  # ours
    assert not control_characters(re.sub(r"\x1b\[[0-9;]*m", "", shown.replace("\r\n", "\n")))
    assert "\x1b[31mred" not in shown


def _on_a_terminal(command: list[str]) -> Iterator[str]:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    content = b""
    try:
        while chunk := os.read(ours, 65_536):
            content += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=30) == 0
    yield content.decode()
