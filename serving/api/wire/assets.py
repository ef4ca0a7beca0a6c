"""Assets as the API shows them."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from serving.api.answer import Answer, Page, WholeSeconds
from serving.store.assets import Asset as AssetRecord


class Asset(Answer):
    """A file that storyboards name."""

    id: str = Field(description="What a storyboard writes: sha256: and the hash of its bytes.")
    object: Literal["asset"] = "asset"
    media_type: str
    bytes: int
    width: int = Field(description="Pixels, as stored.")
    height: int = Field(description="Pixels, as stored.")
    created_at: WholeSeconds
    used_at: WholeSeconds = Field(description="When it was sent, or a job that names it was accepted last.")

    @classmethod
    def of(cls, record: AssetRecord) -> "Asset":
        """A record of the store."""
        known = {name: getattr(record, name) for name in ("media_type", "bytes", "width", "height")}
        times = {name: getattr(record, name) for name in ("created_at", "used_at")}
        return cls(id=f"sha256:{record.sha256}", **known, **times)


class AssetPage(Page):
    """A page of assets, by hash."""

    data: Sequence[Asset]


class Upload(Answer):
    """A file that is being sent in pieces."""

    id: str
    object: Literal["asset.upload"] = "asset.upload"
    received: int = Field(description="Bytes from its start that are here: the offset of the next piece.")
    total: int
