"""Stands in for a build backend; see backend/README.md."""

from metadata_only import (  # noqa: F401
    build_wheel,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_wheel,
)
