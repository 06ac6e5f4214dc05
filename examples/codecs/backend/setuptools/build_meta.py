"""Stands in for a build backend; see backend/README.md."""

import sys

from metadata_only import (  # noqa: F401
    build_wheel,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_wheel,
)

__legacy__ = sys.modules[__name__]  # the object that pip asks when a package names no backend
