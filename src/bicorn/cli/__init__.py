"""The commands that people type: `bicorn` and `bicornctl`."""
