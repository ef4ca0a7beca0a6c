"""Every bound that serving keeps, with its unit, and the only place where the environment is read.

A bound is a constant with a docstring. Nothing here decides anything; it only says how much is too much.
"""

import os
from pathlib import Path

import platformdirs

# ---------------------------------------------------------------------------------------------- storyboard file

MAX_FILE_BYTES = 1 << 20
"""Bytes of a storyboard file. A thousand shots with long prompts fit in half of it."""

MAX_DEPTH = 8
"""Levels of nesting in a storyboard file; the deepest storyboard has four."""

MAX_VALUES = 20_000
"""Values in a storyboard file after aliases are expanded; a thousand full shots hold about ten thousand."""

MAX_PROBLEMS = 50
"""Problems reported at once; more would bury the first."""

# ---------------------------------------------------------------------------------------------- storyboard

MAX_SHOTS = 1000
"""Shots of one storyboard."""

MAX_SHOT_S = 600.0
"""Seconds of one shot."""

MAX_FILM_S = 3600.0
"""Seconds of one film."""

MAX_DISSOLVE_S = 10.0
"""Seconds of one dissolve."""

MAX_PROMPT_CHARS = 2000
"""Characters of one prompt, as written and again with its characters and the style written out."""

MAX_WORDS_CHARS = 500
"""Characters of a style, a negative prompt or the description of a character."""

MAX_TITLE_CHARS = 200
"""Characters of a title."""

MAX_MODEL_CHARS = 500
"""Characters of a model's name or path."""

MAX_CHARACTERS = 100
"""Characters (people and things, not letters) that one storyboard may describe."""

MAX_SEED = 2**53 - 1
"""The largest seed: the largest whole number that every JSON reader keeps exactly."""

MIN_SIDE_PIXELS = 16
"""Pixels; the least width or height of a film."""

MAX_SIDE_PIXELS = 4096
"""Pixels; the greatest width or height of a film."""

MAX_FRAME_PIXELS = 3840 * 2160
"""Pixels of one frame, width times height."""

MAX_FPS = 60
"""Frames per second of a film; the least is 1."""

QUALITY_STEPS = {"draft": 8, "standard": 24, "final": 40}
"""Denoising steps that each quality stands for."""

MAX_STEPS = 200
"""Denoising steps that `--steps` may ask for."""

# ---------------------------------------------------------------------------------------------- command line

MAX_GANGS = 64
"""Worker processes that `--gangs` may ask for on one machine."""

PLAIN_PROGRESS_S = 5.0
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""

MIN_FREE_DISK_BYTES = 1 << 30
"""Bytes; `longtake doctor` warns where less disk space than this is free."""


def debug() -> bool:
    """True where LONGTAKE_DEBUG asks for tracebacks on the terminal."""
    return os.environ.get("LONGTAKE_DEBUG", "") not in ("", "0")


def log_form() -> str:
    """What LONGTAKE_LOG asks log lines to be: json or text; empty where that depends on where they go."""
    return os.environ.get("LONGTAKE_LOG", "")


# ---------------------------------------------------------------------------------------------- rendering

MAX_GANG_DEATHS = 3
"""Gang processes that may die in one render before it is given up."""


MAX_FINISHER_BATCH_LATENTS = 16
"""Latents sent to the finisher at once; more would only make the next wait longer to be seen."""


def home() -> Path:
    """Where Longtake keeps what it learns about this machine: LONGTAKE_HOME, else the user's data folder."""
    set_by_user = os.environ.get("LONGTAKE_HOME")
    return Path(set_by_user) if set_by_user else Path(platformdirs.user_data_dir("longtake"))


# ---------------------------------------------------------------------------------------------- farm configuration

DAY_S = 86_400.0
"""Seconds of a day, in which farm.yaml says how long things are kept."""

MAX_POOLS = 64
"""Pools of one farm."""

MAX_POOL_GANGS = 2048
"""Gangs of one pool."""

MAX_NODE_LABELS = 16
"""Labels that the nodes of one pool may be chosen by."""

MAX_DEFAULT_GANGS = 8
"""Gangs of the pool that a farm has where none is configured: one per core, at most this many."""

# ---------------------------------------------------------------------------------------------- gangs and timelines

MAX_PROMPT_SETS_PER_GANG = 256
"""Takes whose embeddings a gang holds at once; at 512 tokens of 4096 numbers a Wan take needs about 17 MB per text."""

MAX_DECODE_TRIES = 5
"""Times in a row that a decoder may fail on a take before its job does."""

DECODE_RETRY_S = 0.5
"""Seconds before a decoder is asked again; doubled with every failure."""

DECODE_PRUNE_S = 20.0
"""Seconds after which a decoder asks whether a take that no latents came for was decoded elsewhere."""

DECODE_IDLE_S = 3600.0
"""Seconds without latents after which a decoder forgets a take; if they come after all, it begins it anew."""

DECODE_TIMEOUT_S = 600.0
"""Seconds that a decoder may take over one batch of latents, its own start included."""

# ---------------------------------------------------------------------------------------------- artifacts

ARTIFACT_PATIENCE_S = 30.0
"""Seconds for which an artifact store that fails is tried again before the work that needs it does."""

ARTIFACT_RETRY_S = 0.1
"""Seconds before the first new try; doubled with every failure up to ARTIFACT_MAX_RETRY_S, less a random part."""

ARTIFACT_MAX_RETRY_S = 3.0
"""Seconds; the longest wait between two tries."""

ARTIFACT_REQUEST_S = 30.0
"""Seconds that one request to an object store may take."""

ARTIFACT_PART_BYTES = 8 << 20
"""Bytes of one part of a large upload or download, and so what either holds in memory."""

MAX_KEY_CHARS = 500
"""Characters of an artifact's key; object stores allow 1024 bytes with the prefix."""

CHECKPOINTS_KEPT = 2
"""Checkpoints kept of one take: the newest, and the one before it should the newest be damaged."""

UNUSED_ARTIFACTS_S = 30 * 86_400.0
"""Seconds that the frames, latents and checkpoints of a take are kept after the last job that used it has ended."""

DELETED_FILMS_S = 86_400.0
"""Seconds that the film of a deleted job is kept."""

ABANDONED_PARTIALS_S = 86_400.0
"""Seconds after which an unfinished write to a bucket is taken for one whose writer was killed."""

LOCK_S = 2.0
"""Seconds that the writer of a file gets between making it and locking it."""

# ---------------------------------------------------------------------------------------------- previews

HEAD_PREVIEW_S = 2.0
"""Seconds of film by which the decoded head of a take grows before it is published again."""

PREVIEW_TILES = 12
"""Latents shown in the preview of a take."""

PREVIEW_TILE_PIXELS = 96
"""Pixels; the least width of a latent in a preview."""

THUMBNAIL_PIXELS = 640
"""Pixels; the greatest width of a film's thumbnail."""

SPRITES_PER_SIDE = 5
"""Columns, and rows, of a film's sprite sheet."""

SPRITE_PIXELS = 192
"""Pixels; the greatest width of one picture of a sprite sheet."""

# ---------------------------------------------------------------------------------------------- store

STORE_CONNECTIONS = 10
"""Connections that one process holds to the database."""

STORE_BUSY_S = 10.0
"""Seconds to wait for a connection, for a lock, or for SQLite's turn to write."""

STORE_CONNECT_S = 5.0
"""Seconds to wait for Postgres to accept a connection."""

STORE_STATEMENT_S = 30.0
"""Seconds that one statement may take on Postgres."""

STORE_IDLE_S = 60.0
"""Seconds that a transaction may do nothing on Postgres: a process that was stopped must not keep its locks."""

MIGRATION_S = 600.0
"""Seconds that one statement of a migration may take on Postgres, and that others wait for it to be done."""

MAX_PAGE = 500
"""Jobs or events that one query may return."""

MAX_BATCH = 500
"""Values that one query may name, and rows that one may remove: more are taken in several."""

EVENTS_KEPT_S = 30 * 86_400.0
"""Seconds that events are kept; a reader that comes back later starts from the state as it is."""

AUDIT_KEPT_S = 400 * 86_400.0
"""Seconds that the audit log is kept: a year and a month."""

LOG_LINES_KEPT_S = 30 * 86_400.0
"""Seconds that lines of the farm's log are kept in the database."""

LOG_LINES_PER_JOB = 1000
"""Lines kept of one job; the oldest goes first."""

LOG_LINES_OF_FARM = 50_000
"""Lines kept in all; the oldest goes first."""

MAX_LOG_CHARS = 2000
"""Characters kept of one line's message."""

IDEMPOTENCY_KEPT_S = 86_400.0
"""Seconds for which a request that is repeated with its Idempotency-Key has the first one's answer."""

IDEMPOTENCY_BUSY_S = 60.0
"""Seconds after which a request that has no answer yet may be tried again with the same Idempotency-Key."""

WEBHOOK_RETRIES_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
"""Seconds between a failed delivery of a webhook and the next try; after the last it is given up."""

WEBHOOKS_KEPT_S = 7 * 86_400.0
"""Seconds that deliveries are kept after they were made or given up, for their owner to look at."""

MAX_ENDPOINTS = 20
"""Webhook endpoints of one tenant."""

# ---------------------------------------------------------------------------------------------- director

DIRECTOR_TICK_S = 0.5
"""Seconds after which the Director looks again for calls to give out when nothing wakes it: for waits that are over."""

JOURNAL_LINES = 2000
"""Log lines that the Director keeps while the store cannot take them; the newest ones."""

JOURNAL_BATCH = 500
"""Of those, that it writes at once."""

DECODE_AT_LATENTS = 4
"""Finished latents at a take's head that are worth a message to the decoder while the take still renders."""

BUDGET_WARNING = 0.8
"""Part of a job's budget at which its owner is told."""

API_REPORT_S = 2.0
"""Seconds between two times that a process of the Api tells the Director how fast it answers."""

MAX_API_SENDERS = 1000
"""Processes of the Api whose newest report is remembered, so that one that comes twice counts once."""

MAX_TOLD_PROBLEMS = 8
"""Failed checkpoints of which a timeline host tells why, of those since it told last."""

HOST_RETRY_S = 0.25
"""Seconds before a take that its host lost is opened again; doubled with every loss."""

MAX_HOST_FAILURES = 12
"""Times that a take may be lost by its hosts before its job fails."""

GANG_HELLO_S = 1.0
"""Seconds between two messages by which a gang says that it is there."""

RANK_EXCHANGE_S = 30.0
"""Seconds that a rank waits for another of its gang in one exchange; then the gang counts as broken."""

RANK_PING_S = 10.0
"""Seconds in which a rank must answer its leader; one that hangs is replaced."""

GANG_FORM_S = 120.0
"""Seconds in which the ranks of a gang must have started and found each other."""

GANG_SILENT_S = 10.0
"""Seconds without such a message after which a gang counts as gone."""

CONDEMNED_S = 120.0
"""Seconds that the name of a gang that must be replaced is remembered."""

TELL_SUPPLY_S = 2.0
"""Seconds between two times that a pool's gangs and backlog are written down for quotes."""

SCALE_POLL_S = 0.5
"""Seconds between two times that a pool's scaling asks the Director how things stand."""

COLD_START_S = 60.0
"""Seconds that a gang is expected to take to start before any was measured."""

COLD_START_SAMPLES = 5
"""Newest measured starts whose median is expected of the next."""

MAX_COLD_STARTS = 256
"""Gangs whose start is waited for, of one pool; more are not measured."""

WAITING_LOOK_S = 1.0
"""Seconds between two looks at the jobs that wait to be taken up."""

WAITING_PLANNED = 200
"""Jobs that wait to be taken up whose work is known exactly; that of others is taken to be alike."""

WAITING_PLANS_AT_ONCE = 10
"""Of those, that one look plans anew: planning a long film takes a while."""

NODE_WATCH_S = 1.0
"""Seconds between two looks at which nodes are about to go."""

NODE_CALL_S = 5.0
"""Seconds in which Ray, or a timeline host, must say which node is which."""

MOVE_LOOK_S = 0.05
"""Seconds between two looks at whether the calls of takes that move are done."""

MOVE_MARGIN_S = 10.0
"""Seconds before a node may be gone at which the timelines on it are saved, whatever calls of them are still out."""

# ---------------------------------------------------------------------------------------------- scheduling

MIN_DEADLINE_S = 10.0
"""Seconds that a call is always given; less would take a busy machine for a stuck gang."""

DEADLINE_FACTOR = 8.0
"""Times its expected length after which a call is taken for stuck."""

FIRST_CALL_S = 120.0
"""Seconds added for calls whose cost was never measured, and for a gang's first call of each expert: the model may have
to be loaded first."""

SEND_AHEAD_S = 2.0
"""Seconds before a gang should be done with what it has at which it is sent its next call: enough for the tensors to
travel, and little for a call that presses to wait behind."""

WARM_TAKES = 64
"""Takes whose prompts a gang is believed to hold; the least used is forgotten first."""

EQUAL_CHOICES = 4
"""Shares, or gangs with a free slot, among which one that saves sending prompts is looked for."""

LONG_PATH_FACTOR = 1.5
"""A job's longest path goes first, not the head of its film, once its other work would last its gangs less than this
times as long as the path."""

MAX_PRESSING_IN_A_ROW = 9
"""Calls given to jobs whose due time presses before one goes to a job that has its turn: nobody starves."""

DUE_REVIEW_S = 5.0
"""Seconds between two looks at which due times press and which cannot be kept."""

DUE_CAPACITY = 0.85
"""Part of a pool's gangs that due times may count on; the rest is for retries, losses and the turns of others."""

DUE_MARGIN = 1.25
"""Times as long as it should take at least that a job is given before its due time; also SEND_AHEAD_S for each step,
for the wait in a gang's slot, and DUE_LEAD_S."""

DUE_LEAD_S = 60.0
"""Seconds; see DUE_MARGIN. A job that would be late by no more still goes before its turn."""

MAX_CALL_TRIES = 4
"""Counted failures of one call after which its job fails."""

POISON_GANGS = 3
"""Gangs that may die or hang under one call before it is taken for what kills them."""

GANG_STRIKES = 3
"""Calls of one class in a row that a gang may fail, where others do not, before it is replaced."""

RETRY_WAIT_S = 0.2
"""Seconds before a call is given out again after its first failure; doubled with each."""

MAX_RETRY_WAIT_S = 10.0
"""Seconds; the longest such wait."""

FIRST_GUESS_S = 0.02
"""Seconds per latent where nothing is known; pocket takes about 0.005 on one core, large models seconds."""

MAX_COST_KEYS = 1000
"""Kinds of calls whose cost is remembered; the one that was measured longest ago is forgotten first."""

MAX_COST_SIZES = 128
"""Sizes of calls of one kind that are remembered apart."""

COST_SAMPLES = 15
"""Newest measured calls of one size whose median is expected of the next; robust against 7 strange ones."""

MIN_COST_SAMPLES = 3
"""Measured calls of one size below which those of other sizes are asked instead."""

DIRECTOR_RETRY_S = 1.0
"""Seconds between two tries to have a Director of the farm's present configuration."""

DIRECTOR_CALL_S = 5.0
"""Seconds that the API waits for the Director; it accepts jobs without it."""

DIRECTOR_LOOK_S = 2.0
"""Seconds that the API waits for it where the store can answer instead, and somebody asks every second."""

DRAIN_S = 60.0
"""Seconds that a gang is given to finish its calls when it is asked to go."""

# ---------------------------------------------------------------------------------------------- HTTP API

MAX_TAGS = 32
"""Tags of one job."""

MAX_TAG_CHARS = 200
"""Characters of a tag's value, a key's name or a reason."""

MAX_LIST = 100
"""Objects on one page of a list."""

MAX_LOG_LIST = 499
"""Log lines on one page; one more is looked for, and MAX_PAGE is what a query may return."""

MAX_IDEMPOTENCY_KEY_CHARS = 255
"""Characters of an Idempotency-Key."""

MAX_STUDIO_FILE_BYTES = 1 << 20
"""Bytes of one file of the studio's page."""

MAX_TIMELINE_RUNS = 200
"""Runs of equal steps by which it is told how far the latents of one take are; more are told coarser."""

MAX_STREAMS = 150
"""Event streams that one Api process serves at once; each takes one of its ongoing requests."""

MAX_TENANT_STREAMS = 50
"""Event streams that one tenant may hold at one Api process."""

MAX_CHANNEL_EVENTS = 256
"""Events of one job kept in memory for those who watch it; who is further behind is served from the store."""

STREAM_S = 900.0
"""Seconds after which an event stream ends; clients come back with Last-Event-ID."""

KEEP_ALIVE_S = 15.0
"""Seconds between two comments on a silent event stream."""

STREAM_SEND_S = 30.0
"""Seconds that a client may take to accept a piece of an event stream."""

READY_S = 2.0
"""Seconds for which /readyz tries the artifact store again."""

TENANT_CACHE_S = 5.0
"""Seconds after which an Api process sees that the limits of tenants were changed."""

MIN_POLL_S = 0.5
"""Seconds; the shortest time that openai-poll-after-ms asks a client to wait."""

MAX_POLL_S = 10.0
"""Seconds; the longest."""

MAX_FORM_FIELDS = 32
"""Fields of a multipart form on /v1/videos."""

WEBHOOK_EVERY_S = 1.0
"""Seconds between two looks for webhooks that are due."""

WEBHOOK_BATCH = 32
"""Deliveries that one process makes at once."""

WEBHOOK_TIMEOUT_S = 10.0
"""Seconds that one delivery may take in all, from the name's look-up to the status line."""


# ---------------------------------------------------------------------------------------------- up and down

FARM_START_S = 300.0
"""Seconds that a farm may take until it is ready."""

CONTROL_RESOURCE = "longtake_control"
"""Ray resource of the nodes where the Director and the timeline hosts may live: none that may be taken away."""

FARM_DRAIN_S = 30.0
"""Seconds that a farm may take to put its work down when it is ended; what is not saved by then is rendered again."""

RAY_SHUTDOWN_S = 15.0
"""Seconds that Ray may take to end its own processes before they are killed."""

TERMINATE_S = 2.0
"""Seconds between asking a process to end and killing it."""

KILLED_S = 10.0
"""Seconds that a killed process may take to be gone."""

FARM_WATCH_S = 0.5
"""Seconds between two looks at whether the farm's own processes still live."""

MAX_RAY_FOLDER_CHARS = 36
"""Characters of the folder that Ray puts its sockets under: a socket's path may have 107, and Ray adds up to 71."""

LOG_TAIL_LINES = 20
"""Lines of the farm's log that are shown where it could not start."""

PROMETHEUS_PORT = 9090
"""Where the Prometheus of `longtake up --with-prometheus` listens, if the port is free."""

PROMETHEUS_SCRAPE_S = 5
"""Seconds between two times that it reads the farm's metrics."""

PROMETHEUS_EVALUATE_S = 15
"""Seconds between two times that it evaluates rules."""

PROMETHEUS_KEPT_S = 15 * 86_400
"""Seconds that it keeps what it read."""

PROMETHEUS_MAX_BYTES = 1 << 30
"""Bytes of that at most; the oldest goes first."""

PROMETHEUS_START_S = 60
"""Seconds that it may take until it answers: it reads what it had in memory when it ended."""


# ---------------------------------------------------------------------------------------------- client commands

CLIENT_RETRY_S = 15.0
"""Seconds for which a client command tries again to reach a farm that does not answer."""

CLIENT_CONNECT_S = 3.0
"""Seconds for which a client command knocks where nobody has answered yet: usually no farm runs there."""

CLIENT_PATIENCE_S = 300.0
"""Seconds for which a command that watches or downloads waits for a farm that has stopped answering."""

CLIENT_MAX_WAIT_S = 10.0
"""Seconds between two tries of a client, at most; the farm's Retry-After may ask for more, up to CLIENT_RETRY_S."""

LOG_POLL_S = 1.0
"""Seconds between two times that `longtake logs --follow` asks for new lines."""

CLIENT_TIMEOUT_S = 60.0
"""Seconds that a client waits for an answer, and for the next event of a stream."""

PREVIEW_EVERY_S = 2.0
"""Seconds between two pictures of a take while it is denoised."""

EXPORT_RETRY_S = 2.0
"""Seconds between two tries of the Director to listen on its metrics port."""

SWEEP_EVERY_S = 15.0
"""Seconds between two times that the Director removes unfinished writes of processes that were killed."""

TIDY_EVERY_S = 3600.0
"""Seconds between two times that the Director removes what has outlived its use."""
