"""Settings for the whole suite. Its private network comes from multicast_private_network in pyproject.toml."""

from hypothesis import settings

# How long one example takes says nothing on a busy machine; pytest-timeout catches what hangs.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
