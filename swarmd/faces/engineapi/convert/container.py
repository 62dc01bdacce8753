"""Container specs in both directions."""

from __future__ import annotations

from swarmd import api
from swarmd.faces.engineapi.convert.common import (
    Json,
    duration,
    nanoseconds,
    put,
    put_map,
)
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.convert.mount import fill_mount, mount_json
from swarmd.faces.engineapi.convert.privileges import fill_privileges, privileges_json
from swarmd.faces.engineapi.errors import bad_request

_ISOLATIONS = {
    api.ContainerSpec.Isolation.ISOLATION_DEFAULT: "default",
    api.ContainerSpec.Isolation.ISOLATION_PROCESS: "process",
    api.ContainerSpec.Isolation.ISOLATION_HYPERV: "hyperv",
}
# JSON name and message field of members that are copied as they are.
_TEXTS = (
    ("Image", "image"),
    ("Hostname", "hostname"),
    ("Dir", "dir"),
    ("User", "user"),
    ("StopSignal", "stop_signal"),
)
_LISTS = (
    ("Command", "command"),
    ("Args", "args"),
    ("Env", "env"),
    ("Groups", "groups"),
    ("Hosts", "hosts"),
    ("CapabilityAdd", "capability_add"),
    ("CapabilityDrop", "capability_drop"),
)
_FLAGS = (("TTY", "tty"), ("OpenStdin", "open_stdin"), ("ReadOnly", "read_only"))
_DNS = (("Nameservers", "nameservers"), ("Search", "search"), ("Options", "options"))
_HEALTH_TIMES = (
    ("Interval", "interval"),
    ("Timeout", "timeout"),
    ("StartPeriod", "start_period"),
    ("StartInterval", "start_interval"),
)


def container_json(spec: api.ContainerSpec) -> Json:
    """A container spec, members in the order stock engines print them."""
    out: Json = {}
    put(out, "Image", spec.image)
    put_map(out, "Labels", spec.labels)
    put(out, "Command", list(spec.command))
    put(out, "Args", list(spec.args))
    put(out, "Hostname", spec.hostname)
    put(out, "Env", list(spec.env))
    put(out, "Dir", spec.dir)
    put(out, "User", spec.user)
    put(out, "Groups", list(spec.groups))
    if spec.HasField("privileges"):
        out["Privileges"] = privileges_json(spec.privileges)
    if spec.HasField("init"):
        out["Init"] = spec.init.value
    put(out, "StopSignal", spec.stop_signal)
    for name, field in _FLAGS:
        put(out, name, getattr(spec, field))
    put(out, "Mounts", [mount_json(mount) for mount in spec.mounts])
    if spec.HasField("stop_grace_period"):
        out["StopGracePeriod"] = nanoseconds(spec.stop_grace_period)
    if spec.HasField("healthcheck"):
        out["Healthcheck"] = _health_json(spec.healthcheck)
    put(out, "Hosts", list(spec.hosts))
    if spec.HasField("dns_config"):
        dns: Json = {}
        for name, field in _DNS:
            put(dns, name, list(getattr(spec.dns_config, field)))
        out["DNSConfig"] = dns
    put(out, "Secrets", [_secret_json(item) for item in spec.secrets if item.HasField("file")])
    put(out, "Configs", [_config_json(item) for item in spec.configs if item.WhichOneof("target")])
    put(out, "Isolation", _ISOLATIONS.get(spec.isolation, ""))
    put_map(out, "Sysctls", spec.sysctls)
    put(out, "CapabilityAdd", list(spec.capability_add))
    put(out, "CapabilityDrop", list(spec.capability_drop))
    put(out, "Ulimits", [{"Name": u.name, "Hard": u.hard, "Soft": u.soft} for u in spec.ulimits])
    put(out, "OomScoreAdj", spec.oom_score_adj)
    return out


def _health_json(health: api.HealthConfig) -> Json:
    out: Json = {}
    put(out, "Test", list(health.test))
    for name, field in _HEALTH_TIMES:
        put(out, name, nanoseconds(getattr(health, field)))
    put(out, "Retries", health.retries)
    return out


def _file_json(target: api.FileTarget) -> Json:
    return {"Name": target.name, "UID": target.uid, "GID": target.gid, "Mode": target.mode}


def _secret_json(item: api.SecretReference) -> Json:
    return {
        "File": _file_json(item.file),
        "SecretID": item.secret_id,
        "SecretName": item.secret_name,
    }


def _config_json(item: api.ConfigReference) -> Json:
    target: Json = {"Runtime": {}}
    if item.HasField("file"):
        target = {"File": _file_json(item.file)}
    return {**target, "ConfigID": item.config_id, "ConfigName": item.config_name}


def container_spec(fields: Fields) -> api.ContainerSpec:
    """A container spec from a request."""
    spec = api.ContainerSpec()
    for name, field in _TEXTS:
        setattr(spec, field, fields.text(name))
    for name, field in _LISTS:
        getattr(spec, field).extend(fields.strings(name) or ())
    for name, field in _FLAGS:
        setattr(spec, field, fields.flag(name))
    spec.labels.update(fields.mapping("Labels"))
    spec.sysctls.update(fields.mapping("Sysctls"))
    spec.oom_score_adj = fields.number("OomScoreAdj")
    isolation = fields.text("Isolation").lower()
    spec.isolation = next(
        (number for number, word in _ISOLATIONS.items() if word == isolation),
        api.ContainerSpec.Isolation.ISOLATION_DEFAULT,
    )
    init = fields.maybe_flag("Init")
    if init is not None:
        spec.init.value = init
    grace = fields.maybe_number("StopGracePeriod")
    if grace is not None:
        spec.stop_grace_period.CopyFrom(duration(grace))
    dns = fields.maybe_child("DNSConfig")
    if dns is not None:
        spec.dns_config.SetInParent()
        for name, field in _DNS:
            getattr(spec.dns_config, field).extend(dns.strings(name) or ())
    for item in fields.children("Ulimits"):
        spec.ulimits.add(name=item.text("Name"), soft=item.number("Soft"), hard=item.number("Hard"))
    _fill_parts(fields, spec)
    return spec


def _fill_parts(fields: Fields, spec: api.ContainerSpec) -> None:
    privileges = fields.maybe_child("Privileges")
    if privileges is not None:
        fill_privileges(privileges, spec.privileges)
    for item in fields.children("Secrets"):
        secret = spec.secrets.add(
            secret_id=item.text("SecretID"), secret_name=item.text("SecretName")
        )
        file = item.maybe_child("File")
        if file is not None:
            _fill_file(file, secret.file)
    for item in fields.children("Configs"):
        _fill_config(item, spec.configs.add())
    for item in fields.children("Mounts"):
        fill_mount(item, spec.mounts.add())
    health = fields.maybe_child("Healthcheck")
    if health is not None:
        spec.healthcheck.test.extend(health.strings("Test") or ())
        spec.healthcheck.retries = health.number("Retries", "int32")
        for name, field in _HEALTH_TIMES:
            getattr(spec.healthcheck, field).CopyFrom(duration(health.number(name)))


def _fill_file(fields: Fields, target: api.FileTarget) -> None:
    target.SetInParent()
    target.name = fields.text("Name")
    target.uid = fields.text("UID")
    target.gid = fields.text("GID")
    target.mode = fields.number("Mode", "uint32")


def _fill_config(fields: Fields, reference: api.ConfigReference) -> None:
    reference.config_id = fields.text("ConfigID")
    reference.config_name = fields.text("ConfigName")
    file, runtime = fields.maybe_child("File"), fields.maybe_child("Runtime")
    if file is None and runtime is None:
        raise bad_request("invalid Config: either File or Runtime should be set")
    if file is not None and runtime is not None:
        raise bad_request("invalid Config: cannot specify both File and Runtime")
    if file is not None:
        _fill_file(file, reference.file)
    else:
        reference.runtime.SetInParent()
