"""Approvers: decide before serving whether a stored answer in doubt fits a message."""
