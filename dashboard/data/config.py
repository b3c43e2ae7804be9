"""Fixed settings of the app, all from the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class DashboardConfig(BaseSettings):
    """Settings of the app, besides those of the cache itself.

    Attributes:
        namespace: Namespace of the cache.
        write: Whether changes may be made at all.
        token: Token that visitors need; `None` for none.
        token_printed: Whether `glasscache dashboard` generated the token and printed it.
        writers: OIDC users who may make changes; empty: all who are logged in.
        refresh: Seconds between two reads of the store.
        prometheus_url, alertmanager_url: Sources of alerts.
    """

    model_config = SettingsConfigDict(env_prefix="CACHE_DASHBOARD_", frozen=True, extra="ignore")

    namespace: str = "default"
    write: bool = False
    token: str | None = Field(default=None, repr=False)
    token_printed: bool = False
    writers: Annotated[frozenset[str], NoDecode] = frozenset()
    refresh: float = Field(default=2.0, ge=0.5, le=60)
    prometheus_url: str | None = Field(default=None, validation_alias="PROMETHEUS_URL")
    alertmanager_url: str | None = Field(default=None, validation_alias="ALERTMANAGER_URL")

    @field_validator("token", "prometheus_url", "alertmanager_url")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("writers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return frozenset(part.strip() for part in value.split(",") if part.strip())
        return value
