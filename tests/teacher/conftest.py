"""How hypothesis tries things here: the same on every run, at whatever pace the machine has, and leaving no files."""

from hypothesis import settings

settings.register_profile("teacher", derandomize=True, deadline=None, database=None)
settings.load_profile("teacher")
