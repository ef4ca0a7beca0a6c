"""`helm test`: checks that the farm at URL is ready and has every POOL; if not, exits with 1 and says what is wrong."""

import json
import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 10


def ask(url: str) -> dict:
    """The answer to a GET, as JSON."""
    headers = {"Authorization": f"Bearer {os.environ['LONGTAKE_API_KEY']}"} if "LONGTAKE_API_KEY" in os.environ else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as answer:
        return json.load(answer)


def main(url: str, *wanted: str) -> None:
    """Look; raises SystemExit."""
    try:
        ask(f"{url}/readyz")
        pools = {pool["name"] for pool in ask(f"{url}/v1/pools")["data"]} if "LONGTAKE_API_KEY" in os.environ else None
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.url}: {error.code} {error.read().decode(errors='replace')[:500]}")
    except OSError as error:
        sys.exit(f"{url}: {error}")
    missing = sorted(set(wanted) - pools) if pools is not None else []
    if missing:
        sys.exit(f"{url}: has no pool {', '.join(missing)}")
    print("ready", *wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])
