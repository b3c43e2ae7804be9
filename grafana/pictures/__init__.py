"""Pictures of the dashboards for the documentation, drawn by Grafana's own components."""
