"""Builders of the dashboards: queries, panels, boards."""
