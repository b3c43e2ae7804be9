"""Four dashboards: their panels, in order."""
