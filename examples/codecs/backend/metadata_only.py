"""A PEP 517 build backend that builds nothing: its metadata is the PKG-INFO of the distribution."""

from __future__ import annotations

import email
import shutil
from pathlib import Path


def get_requires_for_build_wheel(config_settings: object = None) -> list[str]:
    return []


def prepare_metadata_for_build_wheel(directory: str, config_settings: object = None) -> str:
    fields = email.message_from_bytes(Path("PKG-INFO").read_bytes())
    name = f"{fields['Name'].replace('-', '_')}-{fields['Version']}.dist-info"
    target = Path(directory, name)
    target.mkdir()
    shutil.copy("PKG-INFO", target / "METADATA")
    return name


def build_wheel(directory: str, config_settings: object = None, metadata: object = None) -> str:
    raise NotImplementedError("this backend is for downloading only")
