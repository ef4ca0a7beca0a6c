"""Client commands against the real API on a real store: what they send, print, refuse and leave behind."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from serving.cli.commands import app
from serving.errors import Fault, UserError
from serving.local_farm.home import FarmHome, FarmRecord, write_secret
from serving.settings import MAX_LOG_LIST
from serving.store.log_lines import LogLine
from serving.store.records import LedgerEntry
from tests.serving.api.api_double import FILM, ApiDouble, running

BOARD = """\
version: 1
title: Two balls
quality: draft
shots:
  - {id: red, prompt: a red ball rolls, seconds: 1}
  - {id: blue, prompt: a blue ball rolls, seconds: 1}
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiDouble]:
    pools = [{"name": "default", "price_per_gpu_second": 0.5}]
    with running(tmp_path_factory.mktemp("farm"), pools=pools) as double:
        yield double


@pytest.fixture
def folder(farm: ApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGTAKE_URL", farm.url)
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LONGTAKE_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "board.yaml").write_text(BOARD)
    return tmp_path


def run(*arguments: str, **given: Any) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False, **given)


def output_of(*arguments: str, **given: Any) -> str:
    result = run(*arguments, **given)
    assert result.exit_code == 0, result.output
    return result.stdout


def json_of(*arguments: str) -> Any:
    return json.loads(output_of(*arguments, "--json"))


def submitted(*options: str) -> str:
    return output_of("submit", "board.yaml", *options).strip()


def test_submit_prints_the_id_alone_on_stdout_and_words_beside_it(folder: Path, farm: ApiDouble) -> None:
    result = run("submit", "board.yaml", "--priority", "70", "--due", "in 2h", "--budget", "1.5", "--tag", "film=x=y")
    job = farm.http.get(f"/v1/jobs/{result.stdout.strip()}").json()
    assert (job["priority"], job["budget_usd"], job["tags"], job["status"]) == (70, 1.5, {"film": "x=y"}, "queued")
    assert job["due_at"] == pytest.approx(time.time() + 7200, abs=60)
    assert "Two balls accepted by pool default: 2 takes" in result.stderr


def test_submit_and_quote_warn_of_what_the_film_will_not_show(folder: Path) -> None:
    shot = "{prompt: " + "a red ball moving right " * 20 + ", seconds: 1}"
    (folder / "long.yaml").write_text(f"version: 1\nstyle: day\nshots:\n  - {shot}\n")
    for command in ("quote", "submit"):
        told = run(command, "long.yaml").stderr
        assert "longtake: warning: long.yaml: line 4: shots[0].prompt: the model reads 32 tokens" in told


def test_json_is_the_object_of_the_api_unchanged(folder: Path, farm: ApiDouble) -> None:
    job = json_of("submit", "board.yaml", "--tag", "film=same")
    assert job == farm.http.get(f"/v1/jobs/{job['id']}").json() == json_of("show", job["id"])
    listed = json_of("jobs", "--tag", "film=same")
    assert listed == farm.http.get("/v1/jobs", params={"tag": "film=same"}).json()
    assert json_of("explain", job["id"]) == farm.http.get(f"/v1/jobs/{job['id']}/explain").json()
    assert json_of("usage") == farm.http.get("/v1/usage").json()
    quote = json_of("quote", "board.yaml")
    assert (quote["object"], [take["key"] for take in quote["takes"]]) == ("quote", ["red", "blue"])


def test_a_job_is_found_by_the_last_letters_of_its_id(folder: Path) -> None:
    job_id = submitted()
    assert json_of("show", job_id[-8:])["id"] == job_id
    with pytest.raises(UserError, match=r"none of the last .* jobs end with 'zzzz'"):
        run("show", "zzzz")
    with pytest.raises(UserError, match="jobs end with"):
        run("show", "_")
    with pytest.raises(UserError, match="must be a job's id"):
        run("show", "../keys")


def test_a_list_is_as_long_as_asked_for_over_pages(folder: Path, farm: ApiDouble) -> None:
    ids = [farm.submit(tags={"many": "yes"})["id"] for _ in range(103)]
    listed = json_of("jobs", "--tag", "many=yes", "--limit", "102")
    assert [job["id"] for job in listed["data"]] == ids[:0:-1]
    assert listed["has_more"]
    assert (listed["first_id"], listed["last_id"]) == (ids[-1], ids[1])
    assert json_of("jobs", "--tag", "many=yes", "--limit", "500")["has_more"] is False


def test_tables_cut_no_id_where_a_program_reads_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # tests that run side by side are given one
    job_id = submitted("--tag", "film=table", "--due", "in 1d 6h")
    assert job_id in output_of("jobs", "--status", "queued", "--status", "paused")
    shown = output_of("show", job_id)
    for word in (job_id, "Two balls", "queued", "film=table", "due ", "pool default", "red", "blue", "calls"):
        assert word in shown
    assert "no jobs" in output_of("jobs", "--tag", "film=none")


def test_a_job_is_steered_from_the_command_line(folder: Path, farm: ApiDouble) -> None:
    job_id = submitted("--budget", "1")
    assert output_of("pause", job_id, "--reason", "lunch") == f"{job_id} is paused\n"
    assert json_of("show", job_id)["reason"] == "lunch"
    assert json_of("resume", job_id, "--budget", "2.5")["budget_usd"] == 2.5
    assert output_of("priority", job_id, "99") == f"{job_id} has priority 99\n"
    assert output_of("cancel", job_id) == f"{job_id} is cancelled\n"
    assert json_of("retry", job_id)["status"] == "queued"
    with pytest.raises(UserError, match="retry"):
        run("retry", job_id)
    with pytest.raises(UserError, match="there is no job"):
        run("cancel", "job_" + "0" * 22)


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        (BOARD.replace("red ball rolls, seconds: 1", "ball, seconds: -1"), (), ["board.yaml: line 5: ", "-1"]),
        (BOARD + "model: my/own\n", (), ["board.yaml: line 7: model: ", "pocket"]),
        (BOARD + "video: {width: 17}\n", (), ["board.yaml: line 7: video"]),
        (BOARD, ("--pool", "defalt"), ["--pool: ", "default"]),
        (BOARD, ("--due", "yesterday"), ["--due: ", "in 2h"]),
        (BOARD, ("--due", "in 2 parsecs"), ["--due: "]),
        (BOARD, ("--due", "1999-01-01"), ["--due: must be in the future"]),
        (BOARD, ("--budget", "-1"), ["--budget: "]),
        (BOARD, ("--tag", "x"), ["--tag: must be KEY=VALUE"]),
        (BOARD, ("--tag", "a=1", "--tag", "a=2"), ["--tag: 'a' is given twice"]),
        (BOARD, ("--tag", "a b=1"), ["--tag: "]),
        (BOARD, ("-o", "film.mov"), ["--out: "]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_as_by_local_commands_and_nothing_is_stored(
    folder: Path, farm: ApiDouble, content: str, options: tuple[str, ...], told: list[str]
) -> None:
    (folder / "board.yaml").write_text(content)
    before = farm.services.jobs.count()
    with pytest.raises(UserError) as caught:
        run("submit", "board.yaml", *options)
    assert all(words in str(caught.value) for words in told), caught.value
    assert farm.services.jobs.count() == before


def test_a_revision_says_what_it_costs_before_it_is_made(folder: Path, farm: ApiDouble) -> None:
    job_id = submitted()
    (folder / "board.yaml").write_text(BOARD.replace("blue ball rolls", "green ball rolls"))
    assert "2 takes to render" in output_of("revise", job_id, "board.yaml", "--dry-run")
    with pytest.raises(UserError, match="--yes is needed"):
        run("revise", job_id, "board.yaml")
    assert len(json_of("jobs", "--limit", "500")["data"]) == sum(farm.services.jobs.count().values())
    made = output_of("revise", job_id, "board.yaml", "--yes").strip()
    version = farm.http.get(f"/v1/jobs/{made}").json()
    assert (version["version"], version["parent"]) == (2, job_id)
    final = json_of("finalize", made, "--yes")
    assert (final["version"], final["quote"]["object"]) == (3, "quote")


def test_a_finished_film_comes_home_whole(folder: Path, farm: ApiDouble) -> None:
    content = os.urandom(3_000_000)
    job_id = submitted("--tag", "film=download")
    with pytest.raises(UserError, match=r"has no film yet: it is queued \(0 %\)"):
        run("download", job_id)
    farm.services.artifacts.put(f"films/{job_id}/film.mp4", content)
    farm.services.artifacts.put(f"films/{job_id}/film.json", b'{"frames": 32}')
    farm.act(job_id, "start")
    sha256 = hashlib.sha256(content).hexdigest()
    farm.act(job_id, "complete", film={**FILM, "sha256": sha256, "bytes": len(content)})

    part = folder / f".film.mp4.{sha256[:16]}.part"
    part.write_bytes(content[:1_000_001])  # as an interrupted run leaves it
    assert output_of("download", job_id, "-o", "film.mp4", "--manifest") == "film.mp4\n"
    assert (folder / "film.mp4").read_bytes() == content
    assert json.loads((folder / "film.json").read_text()) == {"frames": 32}
    part.write_bytes(b"something else" * 10)
    assert output_of("download", job_id) == "Two-balls.mp4\n"
    assert (folder / "Two-balls.mp4").read_bytes() == content
    with pytest.raises(UserError, match="is there already"):
        run("download", job_id)
    part.write_bytes(b"wrong" + content[5:])
    assert output_of("download", job_id, "-o", "film.mp4") == "film.mp4\n"
    assert (folder / "film.mp4").read_bytes() == content
    assert not list(folder.glob(".*part"))


def test_a_film_that_is_not_what_the_job_names_is_not_kept(folder: Path, farm: ApiDouble) -> None:
    job_id = submitted()
    farm.complete(job_id, b"not the film with this hash")
    with pytest.raises(Fault, match="hashes differ"):
        run("download", job_id, "-o", "film.mp4")
    assert sorted(path.name for path in folder.iterdir()) == ["board.yaml"]


def test_waiting_ends_with_the_job_and_its_exit_code_says_how(folder: Path, farm: ApiDouble) -> None:
    done, failed = submitted(), submitted()
    farm.complete(done)
    assert run("watch", done).exit_code == 0
    assert "is completed: 32 frames, 2.0 seconds, 96x64" in run("watch", done).stderr
    farm.act(failed, "start")
    farm.act(failed, "fail", error={"code": "poison", "message": "a call killed three gangs"})
    result = run("watch", failed)
    assert result.exit_code == 1
    assert "a call killed three gangs" in result.stderr
    last = json.loads(run("watch", failed, "--json").stdout.splitlines()[-1])
    assert last == farm.http.get(f"/v1/jobs/{failed}").json()


def test_a_submit_that_waits_sees_the_job_through_and_brings_its_film(folder: Path, farm: ApiDouble) -> None:
    arguments = [
        sys.executable,
        "-m",
        "serving.cli.main",
        "submit",
        "board.yaml",
        "-o",
        "film.mp4",
        "--tag",
        "film=wait",
    ]
    waiting = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    content = b"the film"
    try:
        job_id = _wait_for_job(farm, "film=wait")
        farm.services.artifacts.put(f"films/{job_id}/film.mp4", content)
        farm.act(job_id, "start")
        film = {**FILM, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        farm.act(job_id, "complete", film=film)
        stdout, stderr = waiting.communicate(timeout=30)
    finally:
        waiting.kill()
    assert (waiting.returncode, stdout) == (0, "film.mp4\n"), stderr
    assert (folder / "film.mp4").read_bytes() == content
    assert "in progress" in stderr or "completed" in stderr


def test_keys_are_made_listed_and_revoked(folder: Path) -> None:
    made = json_of("keys", "create", "--tenant", "studio", "--name", "render script")
    assert made["secret"].startswith("lt_")
    assert output_of("keys", "create", "--tenant", "studio").startswith("lt_")
    assert "render script" in output_of("keys", "list")
    assert [key["tenant"] for key in json_of("keys", "list", "--tenant", "studio")["data"]] == ["studio", "studio"]
    assert output_of("keys", "revoke", made["id"]) == f"{made['id']} of studio is revoked\n"
    assert "revoked" in output_of("keys", "list")
    with pytest.raises(UserError):
        run("keys", "create", "--tenant", "no/such")


def test_with_keys_on_a_command_needs_one_and_sees_only_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "board.yaml").write_text(BOARD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LONGTAKE_API_KEY", raising=False)
    with running(tmp_path / "farm", auth="on") as farm:
        monkeypatch.setenv("LONGTAKE_URL", farm.url)
        with pytest.raises(UserError, match="API key"):
            run("jobs")
        secrets = {}
        for tenant in ("red", "blue"):
            _, secrets[tenant] = farm.services.keys.create(tenant, "test", time.time())
        monkeypatch.setenv("LONGTAKE_API_KEY", secrets["red"])
        job_id = submitted()
        assert json_of("show", job_id)["tenant"] == "red"
        monkeypatch.setenv("LONGTAKE_API_KEY", secrets["blue"])
        with pytest.raises(UserError, match="there is no job"):
            run("show", job_id)
        assert json_of("jobs")["data"] == []
        with pytest.raises(UserError, match="administrator"):
            run("keys", "list")


def test_without_a_url_commands_talk_to_the_farm_of_their_home_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LONGTAKE_URL", raising=False)
    monkeypatch.delenv("LONGTAKE_API_KEY", raising=False)
    home = FarmHome(tmp_path / "home")
    home.prepare()
    with running(tmp_path / "farm", auth="on") as farm:
        _, secret = farm.services.keys.create("admin", "longtake up", time.time())
        write_secret(home.admin_key_file, secret)
        home.write(FarmRecord(1, 1.0, "ready", farm.url, str(tmp_path), str(tmp_path), 1.0))
        assert "longtake up" in output_of("keys", "list")


def test_usage_is_by_tenant_or_by_the_shots_of_a_job(folder: Path, farm: ApiDouble) -> None:
    job_id = submitted()
    assert output_of("usage", "--job", job_id) == "nothing was spent\n"
    spent = LedgerEntry(job_id, "default", "default", "red", "red", useful_s=2.0, wasted_s=1.0, usd=1.5, at=time.time())
    farm.services.ledger.add([spent])
    assert output_of("usage", "--job", job_id).split()[-5:] == ["red", "red", "2.0", "1.0", "$1.50"]
    assert output_of("usage", "--days", "7").split()[-4:] == ["default", "2.0", "1.0", "$1.50"]
    assert output_of("usage", "--days", "0") == "nothing was spent\n"


def test_without_a_farm_a_command_says_how_to_get_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("serving.cli.client.farm_client.CLIENT_CONNECT_S", 0.0)
    with pytest.raises(Fault, match="`longtake up` starts one"):
        run("jobs")
    for url in ("127.0.0.1:8000", "http://", "ftp://host"):
        monkeypatch.setenv("LONGTAKE_URL", url)
        with pytest.raises(UserError, match="LONGTAKE_URL: must begin with http"):
            run("jobs")


@pytest.mark.parametrize("arguments", [["jobs", "--json"], ["submit", "board.yaml"]])
def test_client_commands_import_neither_torch_nor_ray_nor_the_store(folder: Path, arguments: list[str]) -> None:
    script = (
        "import sys\nfrom serving.cli.commands import app\n"
        f"sys.argv = ['longtake', *{arguments!r}]\n"
        "try:\n    app()\nfinally:\n"
        "    print([m for m in ('torch', 'ray', 'sqlalchemy', 'fastapi', 'diffusers') if m in sys.modules],"
        " file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert result.stderr.splitlines()[-1] == "[]"


def _wait_for_job(farm: ApiDouble, tag: str) -> str:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = farm.http.get("/v1/jobs", params={"tag": tag}).json()["data"]
        if found:
            return str(found[0]["id"])
        time.sleep(0.01)
    raise AssertionError("no job was submitted")


def test_versions_are_listed_and_compared(folder: Path) -> None:
    first = submitted()
    (folder / "edited.yaml").write_text(BOARD.replace("a red ball rolls", "a green ball rolls"))
    second = output_of("revise", first, "edited.yaml", "--yes").strip()
    listed = output_of("versions", first)
    assert [line.split()[:2] for line in listed.splitlines() if "job_" in line] == [["1", first], ["2", second]]
    assert output_of("diff", second).splitlines() == [
        'shots.red.prompt: "a red ball rolls" -> "a green ball rolls"',
        "take red: changed",
        "take blue: same",
    ]
    assert "the storyboards are the same" in output_of("diff", first, first)
    assert json_of("diff", first, second)["against"] == second
    with pytest.raises(UserError, match="cancel it first"):
        run("delete", second)
    run("cancel", second)
    assert output_of("delete", second) == f"{second} is deleted\n"
    assert [job["id"] for job in json_of("versions", first)["data"]] == [first]


def test_a_tenant_keeps_the_settings_that_are_not_named(folder: Path) -> None:
    assert output_of("tenants", "list") == "no tenant has settings of its own\n"
    assert output_of("tenants", "set", "ada", "--share", "2", "--jobs", "3") == "ada: a share of 2, 3 jobs\n"
    assert output_of("tenants", "set", "ada", "--calls", "8") == "ada: a share of 2, 3 jobs, 8 calls\n"
    assert "ada" in output_of("tenants", "list")
    assert json_of("tenants", "list")["data"][0]["max_concurrent_jobs"] == 3
    with pytest.raises(UserError, match="weight: "):
        run("tenants", "set", "ada", "--share", "-1")


def test_webhooks_are_added_listed_and_removed(folder: Path) -> None:
    added = run("webhooks", "add", "https://93.184.216.34/longtake")
    assert added.stdout.startswith("whsec_")
    [webhook] = json_of("webhooks", "list")["data"]
    assert "https://93.184.216.34/longtake" in output_of("webhooks", "list")
    assert output_of("webhooks", "deliveries", webhook["id"]) == "nothing was sent yet\n"
    assert output_of("webhooks", "remove", webhook["id"]) == f"{webhook['id']} is removed\n"
    assert output_of("webhooks", "list") == "no webhooks\n"


def log_line(job_id: str, message: str, level: Any = "info", **fields: Any) -> LogLine:
    return LogLine(time.time(), level, "test", message, job_id, fields)


def test_logs_prints_what_was_logged_of_a_job_oldest_first(folder: Path, farm: ApiDouble) -> None:
    job_id = submitted()
    farm.services.log_lines.add(
        [log_line(job_id, "it is taken up"), log_line(job_id, "it hurts", "warning", take="red", gang="g-1", times=3)]
    )
    lines = output_of("logs", job_id[-8:]).splitlines()
    assert [text.split("  ", 1)[1] for text in lines] == [
        "it is taken up", "warning: it hurts (3 times)  [take red, gang g-1]",
    ]  # fmt: skip
    assert len(output_of("logs", job_id, "--level", "warning").splitlines()) == 1
    read = [json.loads(text) for text in output_of("logs", job_id, "--json").splitlines()]
    assert [line["message"] for line in read] == ["it is taken up", "it hurts"]
    assert read[0] == farm.http.get(f"/v1/jobs/{job_id}/logs").json()["data"][0]


def test_logs_prints_every_page(folder: Path, farm: ApiDouble) -> None:
    job_id = submitted()
    farm.services.log_lines.add([log_line(job_id, f"line {number}") for number in range(MAX_LOG_LIST + 5)])
    assert len(output_of("logs", job_id).splitlines()) == MAX_LOG_LIST + 5


def test_logs_that_follow_go_on_until_the_job_is_over(
    folder: Path, farm: ApiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submitted()
    steps: Iterator[Callable[[], object]] = iter(
        [
            lambda: farm.services.log_lines.add([log_line(job_id, "it began")]),
            lambda: farm.act(job_id, "cancel"),
            lambda: farm.services.log_lines.add([log_line(job_id, "it ended")]),
        ]
    )
    clock = SimpleNamespace(sleep=lambda seconds: next(steps)())
    monkeypatch.setattr("serving.cli.logs.time", clock)
    read = [json.loads(text)["message"] for text in output_of("logs", job_id, "--follow", "--json").splitlines()]
    assert read == ["it began", "it ended"]
    assert next(steps, None) is None
