"""Pictures of the dashboards for the documentation, drawn without Grafana."""
