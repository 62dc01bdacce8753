"""The values a service spec means where it says nothing (`insert_defaults`). Pure."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from swarmd import api

STOP_GRACE_SECONDS = 10
RESTART_DELAY_SECONDS = 5
MONITOR_SECONDS = 5


def with_defaults(spec: api.ServiceSpec) -> api.ServiceSpec:
    """A copy of `spec` with the reference's defaults in the gaps."""
    full = api.ServiceSpec()
    full.CopyFrom(spec)
    task = full.task
    if task.HasField("container"):
        _fill_container(task.container)
    if not task.HasField("resources"):
        task.resources.SetInParent()
    if not task.HasField("restart"):
        task.restart.condition = api.RestartPolicy.RestartCondition.ANY
    if not task.restart.HasField("delay"):
        task.restart.delay.CopyFrom(Duration(seconds=RESTART_DELAY_SECONDS))
    if not task.HasField("placement"):
        task.placement.SetInParent()
    for name in ("update", "rollback"):
        config: api.UpdateConfig = getattr(full, name)
        if not full.HasField(name):
            # Failure action and order default to their zero values, pause and stop first.
            config.parallelism = 1
        if not config.HasField("monitor"):
            config.monitor.CopyFrom(Duration(seconds=MONITOR_SECONDS))
    return full


def _fill_container(container: api.ContainerSpec) -> None:
    if not container.HasField("stop_grace_period"):
        container.stop_grace_period.CopyFrom(Duration(seconds=STOP_GRACE_SECONDS))
    for name in ("pull_options", "dns_config"):
        if not container.HasField(name):
            getattr(container, name).SetInParent()
