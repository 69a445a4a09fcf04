"""Stores: what keeps the engine's rows. `base` is the contract, `conformance` its test."""

from __future__ import annotations

from stepwell.stores.registry import open_store

__all__ = ["open_store"]
