"""How many submissions a second does the API accept, with 100,000 jobs stored, before one in a hundred takes 100 ms?

A real Postgres that syncs every commit, a real uvicorn process with the real store and admission, and a client that
sends at fixed times whether or not earlier answers have come; a request's time counts from when it should have been
sent. The rate is raised until the 99th percentile passes the limit; afterwards every accepted job is looked for in the
store.

    python -m benchmarks.api_load [--jobs 100000] [--seconds 10] [--rates 10,20,40,...] [--url http://host:8000]

With --url a farm that runs already is asked, through its own ingress: nothing is stored beforehand, and the jobs that
the run submits stay there, cancelled. Its limits must allow the rates.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import uvicorn
from sqlalchemy import Text, cast, func, insert, literal, literal_column, select

from serving.api.app import create_api
from serving.api.services import open_services
from serving.config.farm import FarmConfig, LimitsConfig
from serving.errors import Fault
from serving.store.database import open_database
from serving.store.jobs import JobStore
from serving.store.records import JobStatus
from serving.store.tables import events, jobs, storyboards, takes
from testkit.postgres import find_program
from testkit.records import new_job, new_takes

LIMIT_S = 0.1
"""Seconds that the 99th percentile must stay under."""

RATES = (10, 20, 30, 40, 50, 60, 80, 100, 125, 150, 200, 250, 300, 400)
"""Submissions per second, tried in this order."""

CONNECTIONS = 64
"""Connections of the client; a request waits if all are taken, and that counts."""

START_S = 60.0
"""Seconds that a server may take to answer for the first time."""

STORYBOARD = {
    "version": 1,
    "title": "A walk by the sea",
    "shots": [
        {"id": f"shot-{number}", "prompt": f"a red ball rolls along the beach, part {number}", "seconds": 5.0}
        for number in range(4)
    ],
}


@dataclass(frozen=True)
class Run:
    """What came of one rate."""

    rate: int
    times_s: list[float]
    accepted: list[str]
    refused: int

    def quantile_s(self, part: float) -> float:
        """Seconds within which this part of the requests was answered."""
        ordered = sorted(self.times_s)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


# ---------------------------------------------------------------------------------------------- client


class Connection:
    """An HTTP/1.1 connection with as little of its own as will do, so that the client leaves the machine to the
    server."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. A connection that the server has closed meanwhile is opened anew."""
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
        head += f"Idempotency-Key: {uuid.uuid4().hex}\r\nContent-Length: {len(body)}\r\n\r\n"
        while True:
            is_new = self._streams is None
            try:
                return await self._exchange(head.encode() + body)
            except (asyncio.IncompleteReadError, ConnectionError):
                if is_new:
                    raise
                self._streams = None

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        answer = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in answer[1:] if line)
        content = await reader.readexactly(int(headers[b"content-length"]))
        return int(answer[0].split(b" ")[1]), content

    def close(self) -> None:
        """Give the connection back."""
        if self._streams is not None:
            self._streams[1].close()


async def submit_at(rate: int, *, seconds: float, url: str) -> Run:
    """Submit `rate` jobs a second, each at its time."""
    parts = urlsplit(url)
    idle: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()  # the last used first: others may be closed
    for _ in range(CONNECTIONS):
        idle.put_nowait(Connection(parts.hostname or "", parts.port or 80))
    body = json.dumps({"storyboard": STORYBOARD}).encode()
    times_s, accepted, refused = list[float](), list[str](), 0

    async def submit(due: float) -> None:
        nonlocal refused
        await asyncio.sleep(due - time.perf_counter())
        connection = await idle.get()
        status, answer = await connection.post("/v1/jobs", body)
        idle.put_nowait(connection)
        times_s.append(time.perf_counter() - due)
        if status == 201:
            accepted.append(json.loads(answer)["id"])
        else:
            refused += 1

    begin = time.perf_counter() + 0.2
    await asyncio.gather(*(submit(begin + number / rate) for number in range(int(rate * seconds))))
    while not idle.empty():
        idle.get_nowait().close()
    return Run(rate, times_s, accepted, refused)


# ---------------------------------------------------------------------------------------------- servers


class NobodyLive:
    """A Director that is away; the API accepts jobs all the same."""

    def poke(self) -> None:
        raise Fault("there is no Director here")

    def explain(self, job_id: str) -> None:
        self.poke()

    def metrics(self) -> bytes:
        return b""

    def pools(self) -> list[dict[str, object]]:
        return []


def serve(config: str, port: int) -> None:
    """Run the API in this process until it is ended."""
    nobody: Any = NobodyLive()
    services = open_services(FarmConfig.model_validate_json(config), nobody)
    uvicorn.run(create_api(services), host="127.0.0.1", port=port, log_level="error", access_log=False)


@contextlib.contextmanager
def api_process(config: FarmConfig) -> Iterator[str]:
    """The API in a process of its own; its address."""
    url = f"http://127.0.0.1:{config.port}"
    command = [sys.executable, "-m", "benchmarks.api_load", "--serve", json.dumps(config.as_json())]
    process = subprocess.Popen(command)
    try:
        wait_for(lambda: httpx.get(f"{url}/readyz").is_success, (httpx.HTTPError,))
        yield url
    finally:
        process.terminate()
        process.wait(START_S)


@contextlib.contextmanager
def postgres_process() -> Iterator[str]:
    """A Postgres as it comes, so with fsync and synchronous commits; the URL of its database."""
    folder = Path(tempfile.mkdtemp(prefix="pg-load-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # Postgres refuses to run as root
        user = pwd.getpwnam("nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    data = str(folder / "data")
    make = [*as_user, find_program("initdb"), "-D", data, "-U", "farm", "-A", "trust", "-E", "UTF8"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    options = ["-c", "listen_addresses=", "-c", "shared_buffers=256MB"]
    start = [*as_user, find_program("postgres"), "-D", data, "-k", str(folder), *options]
    url = f"postgresql://farm@/postgres?host={folder}"
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(start, stdout=log, stderr=log, cwd=folder)
    try:
        wait_for(lambda: bool(psycopg.connect(url).execute("SELECT 1")), (psycopg.OperationalError,))
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(START_S)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(answers: Callable[[], bool], errors: tuple[type[Exception], ...]) -> None:
    """Returns once it answers."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with contextlib.suppress(*errors):
            if answers():
                return
        time.sleep(0.05)
    raise TimeoutError("a server did not start")


# ---------------------------------------------------------------------------------------------- what is stored


def store_jobs(url: str, count: int) -> None:
    """Store `count` completed jobs of fifty tenants with their takes, storyboards and events, as copies of one."""
    database = open_database(url)
    job = replace(new_job(), storyboard=STORYBOARD, status=JobStatus.COMPLETED, progress=100.0)
    stored = JobStore(database).insert(job, new_takes(job, 4), actor="farm/benchmark")
    number = func.generate_series(1, count).table_valued("n").render_derived()
    # Ids that sort before all that are made from now on.
    other = literal("job_000000") + func.lpad(cast(number.c.n, Text), 16, "0")
    tenant = literal("tenant") + cast(number.c.n % 50, Text)
    renamed: dict[str, Any] = {"id": other, "family": other, "job_id": other, "tenant": tenant}
    with database.begin() as connection:
        for table in (jobs, storyboards, takes, events):
            names = [column.name for column in table.columns if not (table is events and column.name == "id")]
            key = table.c.id if table is jobs else table.c.job_id
            rows = select(*(renamed.get(name, table.c[name]) for name in names))
            rows = rows.select_from(table).join(number, literal_column("true")).where(key == stored.id)
            connection.execute(insert(table).from_select(names, rows))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    database.close()


def count_jobs(url: str, accepted: list[str]) -> tuple[int, int]:
    """How many jobs are stored, and how many of those accepted are not."""
    database = open_database(url)
    with database.read() as connection:
        found = set(connection.execute(select(jobs.c.id)).scalars())
    database.close()
    return len(found), len(set(accepted) - found)


# ---------------------------------------------------------------------------------------------- the benchmark


def measure(url: str, rates: tuple[int, ...], seconds: float) -> list[Run]:
    """Every rate until one is too much. The first run only opens connections and models."""
    runs = [asyncio.run(submit_at(10, seconds=2, url=url))]
    print("| submissions a second | sent | p50 ms | p90 ms | p99 ms | worst ms | refused |")
    print("|---|---|---|---|---|---|---|")
    for rate in rates:
        run = asyncio.run(submit_at(rate, seconds=seconds, url=url))
        cells = [f"{1000 * run.quantile_s(part):.1f}" for part in (0.5, 0.9, 0.99, 1.0)]
        print(f"| {rate} | {len(run.times_s)} | {' | '.join(cells)} | {run.refused} |", flush=True)
        runs.append(run)
        if run.quantile_s(0.99) >= LIMIT_S or run.refused:
            break
    return runs


def time_reads(url: str) -> None:
    """How long reads take with everything stored."""
    print("\n| request | p50 ms | worst of 50 ms |\n|---|---|---|")
    with httpx.Client(base_url=url) as http:
        some = http.get("/v1/jobs?limit=1").json()["data"][0]["id"]
        for path in (f"/v1/jobs/{some}", "/v1/jobs", "/v1/jobs?status=queued&limit=100", "/v1/jobs?tenant=tenant7"):
            times_s = []
            for _ in range(50):
                begin = time.perf_counter()
                assert http.get(path).is_success
                times_s.append(time.perf_counter() - begin)
            median, worst = (1000 * value for value in (statistics.median(times_s), max(times_s)))
            print(f"| GET {path.replace(some, '{id}')} | {median:.1f} | {worst:.1f} |")


def report(runs: list[Run], lost: str) -> None:
    """The result in a line."""
    good = [run.rate for run in runs[1:] if run.quantile_s(0.99) < LIMIT_S and not run.refused]
    accepted = sum(len(run.accepted) for run in runs)
    print(f"\nHighest rate with p99 under {1000 * LIMIT_S:.0f} ms: {max(good, default=0)} a second.")
    print(f"{accepted} jobs accepted, {lost}.")


def run_here(count: int, rates: tuple[int, ...], seconds: float) -> None:
    """With servers of our own."""
    with postgres_process() as store_url, tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        store_jobs(store_url, count)
        before, _ = count_jobs(store_url, [])
        print(f"{before} jobs stored in {time.perf_counter() - begin:.0f} s\n", flush=True)
        limits = LimitsConfig(requests_per_minute=1_000_000, queued_jobs_per_tenant=1_000_000)
        config = FarmConfig(store_url=store_url, artifacts_url=f"{folder}/artifacts", port=18_000, limits=limits)
        with api_process(config) as url:
            runs = measure(url, rates, seconds)
            time_reads(url)
        accepted = [job for run in runs for job in run.accepted]
        after, lost = count_jobs(store_url, accepted)
        report(runs, f"{lost} lost, {after - before - len(accepted)} stored that nobody was told of")


def run_there(url: str, rates: tuple[int, ...], seconds: float) -> None:
    """Against a farm that runs already."""
    runs = measure(url, rates, seconds)
    accepted = [job for run in runs for job in run.accepted]
    with httpx.Client(base_url=url) as http:
        lost = sum(http.get(f"/v1/jobs/{job}").status_code != 200 for job in accepted)
        for job in accepted:
            http.post(f"/v1/jobs/{job}/cancel")
    report(runs, f"{lost} lost")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds for each rate")
    parser.add_argument("--rates", type=lambda text: tuple(map(int, text.split(","))), default=RATES)
    parser.add_argument("--url", help="a farm that runs already")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, json.loads(arguments.serve)["port"])
    elif arguments.url:
        run_there(arguments.url, arguments.rates, arguments.seconds)
    else:
        run_here(arguments.jobs, arguments.rates, arguments.seconds)


if __name__ == "__main__":
    main()
