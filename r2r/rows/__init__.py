"""Rows of a table through workers, resumable: `pool` runs them, `journal` keeps every finished row on disk.

Knows neither models nor stages: a worker is any class whose instances answer a row.
"""
