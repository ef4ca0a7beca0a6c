"""Fetches checkpoints from a Hugging Face hub: configs first, then one component at a time.

Only JSON, tokenizer files and safetensors are ever asked for, so that nothing pickled reaches the disk. The first
request carries a timeout of our own: the hub client's default is to wait forever.
"""

from dataclasses import dataclass
from pathlib import Path

from serving.errors import ModelError
from serving.models.quiet import quiet_downloads

CONFIG_FILES = (
    "model_index.json", "longtake.json", "*/config.json", "*/scheduler_config.json", "*/tokenizer_config.json",
)  # fmt: skip
COMPONENT_FILES = ("*.json", "*.safetensors", "*.model", "*.txt")
"""Of one component's folder: weights and configs, and the vocabulary files of tokenizers (`spiece.model`)."""


@dataclass(frozen=True)
class Hub:
    """Where models named `org/name` come from."""

    endpoint: str | None = None
    """URL; None: the hub client's own default."""
    timeout_s: float = 10.0
    """Seconds to wait for the hub's answer before falling back to what was fetched earlier."""
    cache: Path | None = None
    """Where fetched files are kept; None: the hub client's own default, shared with other programs."""

    def find(self, repository: str) -> "Snapshot":
        """The newest version of a repository, its configs fetched. Raises ModelError."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

        try:
            HfApi(endpoint=self.endpoint).model_info(repository, timeout=self.timeout_s)
        except HFValidationError as error:
            raise ModelError(f"{repository!r} is not a hub id: {error}") from error
        except GatedRepoError as error:
            raise ModelError(f"the hub lists {repository!r} but gives it only to accounts with access") from error
        except RepositoryNotFoundError as error:
            raise ModelError(f"the hub has no model {repository!r}, or it is private") from error
        except Exception as error:  # the transport's errors are no part of the client's API: requests, httpx, httpx2
            return self._find_cached(repository, reason=error)
        # By branch and not by the commit just heard of: only so does the client note which commit to open when offline.
        return Snapshot(hub=self, repository=repository, folder=self.download(repository, patterns=CONFIG_FILES))

    def _find_cached(self, repository: str, *, reason: Exception) -> "Snapshot":
        from huggingface_hub import snapshot_download

        try:
            folder = snapshot_download(
                repository, allow_patterns=list(CONFIG_FILES), local_files_only=True, cache_dir=self.cache
            )
        except OSError as error:
            raise ModelError(
                f"cannot reach the hub for {repository!r} ({type(reason).__name__}: {reason}), and it was not fetched"
                " before; connect, or give a local folder"
            ) from error
        return Snapshot(hub=self, repository=repository, folder=Path(folder), offline=True)

    def download(self, repository: str, *, patterns: tuple[str, ...], revision: str | None = None) -> Path:
        """Fetches the files that match and returns the snapshot's folder. Raises ModelError."""
        from huggingface_hub import snapshot_download

        try:
            with quiet_downloads():
                folder = snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=list(patterns),
                    etag_timeout=self.timeout_s,
                    endpoint=self.endpoint,
                    cache_dir=self.cache,
                )
        except Exception as error:  # as in `find`
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(f"cannot fetch {repository!r} from the hub: {reason}") from error
        return Path(folder)


@dataclass(frozen=True)
class Snapshot:
    """One version of a hub repository, as far as it was fetched."""

    hub: Hub
    repository: str
    folder: Path
    """In the hub client's cache; its name is the version's commit hash."""
    offline: bool = False

    def fetch(self, component: str) -> None:
        """Fetches one component's files unless they are there. Raises ModelError."""
        if self.offline:
            self._require_fetched(component)
            return
        patterns = tuple(f"{component}/{pattern}" for pattern in COMPONENT_FILES)
        self.hub.download(self.repository, patterns=patterns, revision=self.folder.name)

    def _require_fetched(self, component: str) -> None:
        # Configs come with `find`; weights, vocabularies and schedulers are the files beside them.
        folder = self.folder / component
        configs = ("config.json", "tokenizer_config.json")
        if not folder.is_dir() or all(path.name in configs for path in folder.iterdir()):
            raise ModelError(f"cannot reach the hub, and the {component} of {self.repository!r} was not fetched before")
