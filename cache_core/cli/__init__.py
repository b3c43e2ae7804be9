"""The command `glasscache`: one file per group of commands."""
