"""The verbs of the API; no verb imports another."""
