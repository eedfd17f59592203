"""The declarations of all settings, one file a section."""
