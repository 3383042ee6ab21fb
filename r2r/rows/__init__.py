"""Rows of a table through workers, resumable: `pool` runs them, `journal` keeps each finished row on disk.

Knows neither models nor stages: a worker is any `pool.RowWorker`.
"""
