"""Stands in for a build backend; see backend/README.md."""
