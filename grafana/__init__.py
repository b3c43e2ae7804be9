"""Grafana dashboards of glasscache, as code: `python -m grafana.generate`."""

import contextlib
import warnings

with warnings.catch_warnings(), contextlib.suppress(ImportError):
    # The SDK prefers schema v2, which a Grafana older than 12 cannot read from a file, and warns
    # about it on import. Querying a Prometheus (`grafana.live`) needs no SDK.
    warnings.simplefilter("ignore", DeprecationWarning)
    import grafana_foundation_sdk.builders.dashboard
    import grafana_foundation_sdk.builders.prometheus
    import grafana_foundation_sdk.cog.plugins  # noqa: F401
