"""Settings: one declaration an option, read from everywhere, frozen, each value with its source."""

from bicorn.config.load import load_settings
from bicorn.config.setting import Setting
from bicorn.config.settings import Settings
from bicorn.config.sources import Source

__all__ = ["Setting", "Settings", "Source", "load_settings"]
