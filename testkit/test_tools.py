"""Programs that tests run for real, and how a test is skipped on a machine that lacks one."""

INSTALL = "make test-tools"
"""Installs them all; see .ci/install-test-tools."""

NO_POSTGRES = f"PostgreSQL 14 or newer is not installed (initdb, postgres; PG_BIN names their folder): {INSTALL}"
NO_PROMETHEUS = f"Prometheus is not installed (prometheus, promtool): {INSTALL}"
NO_BROWSER = f"Chromium is not installed: {INSTALL}"
NO_MOUNT = "mounting a file system (tmpfs) needs root"
NO_NAMESPACE = "a process namespace needs unshare and root"
