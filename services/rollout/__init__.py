"""Roll-outs of a model version: patch, watch health and objectives, promote or roll back, record.

Conductor ──► Target   what serves: a RayService, or the local stack of `medmax serve`
    │   └───► Meter    errors and times of its requests, from /metrics or Prometheus
    ├──► Ledger        the roll-out at work and the history: a ConfigMap, or files
    └──► Lock          one conductor at a time: a Lease, or a file lock
"""
