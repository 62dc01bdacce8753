"""Mounts of a container spec."""

from __future__ import annotations

import json
from typing import Any

from swarmd import api
from swarmd.faces.engineapi.convert.common import (
    Json,
    driver_json,
    numbers,
    put,
    put_map,
    quoted,
    words,
)
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.convert.secret import fill_driver
from swarmd.faces.engineapi.errors import bad_request

_type_word = words(api.Mount.Type)
_propagation_word = words(api.Mount.BindOptions.Propagation)
_TYPES = numbers(api.Mount.Type)
_PROPAGATIONS = numbers(api.Mount.BindOptions.Propagation)


def mount_json(mount: api.Mount) -> Json:
    """One mount; consistency is not shown, as in stock engines."""
    out: Json = {"Type": _type_word(mount.type)}
    put(out, "Source", mount.source)
    put(out, "Target", mount.target)
    put(out, "ReadOnly", mount.readonly)
    if mount.HasField("bind_options"):
        bind: Json = {"Propagation": _propagation_word(mount.bind_options.propagation)}
        put(bind, "NonRecursive", mount.bind_options.nonrecursive)
        put(bind, "CreateMountpoint", mount.bind_options.createmountpoint)
        put(bind, "ReadOnlyNonRecursive", mount.bind_options.readonlynonrecursive)
        put(bind, "ReadOnlyForceRecursive", mount.bind_options.readonlyforcerecursive)
        out["BindOptions"] = bind
    if mount.HasField("volume_options"):
        options = mount.volume_options
        volume: Json = {}
        put(volume, "NoCopy", options.nocopy)
        put_map(volume, "Labels", options.labels)
        put(volume, "Subpath", options.subpath)
        if options.HasField("driver_config"):
            volume["DriverConfig"] = driver_json(options.driver_config)
        out["VolumeOptions"] = volume
    if mount.HasField("tmpfs_options"):
        tmpfs: Json = {}
        put(tmpfs, "SizeBytes", mount.tmpfs_options.size_bytes)
        put(tmpfs, "Mode", mount.tmpfs_options.mode)
        put(tmpfs, "Options", _tmpfs_options(mount.tmpfs_options.options))
        out["TmpfsOptions"] = tmpfs
    return out


def _tmpfs_options(text: str) -> Any:
    # Lists of one or two strings, kept as JSON in a string; junk from elsewhere shows as nothing.
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def fill_mount(fields: Fields, mount: api.Mount) -> None:
    """One mount of a request."""
    mount.target = fields.text("Target")
    mount.source = fields.text("Source")
    mount.readonly = fields.flag("ReadOnly")
    kind = fields.text("Type")
    if kind:
        if kind.lower() not in _TYPES:
            raise bad_request(f"invalid MountType: {quoted(kind)}")
        mount.type = _TYPES[kind.lower()]
    bind = fields.maybe_child("BindOptions")
    if bind is not None:
        _fill_bind(bind, mount)
    volume = fields.maybe_child("VolumeOptions")
    if volume is not None:
        mount.volume_options.nocopy = volume.flag("NoCopy")
        mount.volume_options.labels.update(volume.mapping("Labels"))
        mount.volume_options.subpath = volume.text("Subpath")
        driver = volume.maybe_child("DriverConfig")
        if driver is not None:
            fill_driver(driver, mount.volume_options.driver_config)
        mount.volume_options.SetInParent()
    tmpfs = fields.maybe_child("TmpfsOptions")
    if tmpfs is not None:
        mount.tmpfs_options.size_bytes = tmpfs.number("SizeBytes")
        mount.tmpfs_options.mode = tmpfs.number("Mode", "uint32")
        # Always written, "null" when absent, as stock does.
        mount.tmpfs_options.options = json.dumps(tmpfs.get("Options"), separators=(",", ":"))
        mount.tmpfs_options.SetInParent()


def _fill_bind(bind: Fields, mount: api.Mount) -> None:
    propagation = bind.text("Propagation")
    if propagation:
        if propagation.lower() not in _PROPAGATIONS:
            raise bad_request(f"invalid MountPropagation: {quoted(propagation)}")
        mount.bind_options.SetInParent()
        mount.bind_options.propagation = _PROPAGATIONS[propagation.lower()]
    for name, field in _BIND_FLAGS:
        if bind.flag(name):
            setattr(mount.bind_options, field, True)


_BIND_FLAGS = (
    ("NonRecursive", "nonrecursive"),
    ("CreateMountpoint", "createmountpoint"),
    ("ReadOnlyNonRecursive", "readonlynonrecursive"),
    ("ReadOnlyForceRecursive", "readonlyforcerecursive"),
)
