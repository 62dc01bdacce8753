"""Secrets and configs."""

from __future__ import annotations

import base64
import binascii

from swarmd import api
from swarmd.faces.engineapi.convert.common import Json, annotations_json, driver_json, start
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.errors import bad_request


def secret_json(secret: api.Secret) -> Json:
    """A secret; its data is there only if a manager sent it, and managers do not."""
    out = start(secret)
    spec = _spec_json(secret.spec)
    if secret.spec.HasField("driver"):
        spec["Driver"] = driver_json(secret.spec.driver)
    _add_templating(spec, secret.spec)
    out["Spec"] = spec
    return out


def config_json(config: api.Config) -> Json:
    """A config with its data."""
    out = start(config)
    spec = _spec_json(config.spec)
    _add_templating(spec, config.spec)
    out["Spec"] = spec
    return out


def _spec_json(spec: api.SecretSpec | api.ConfigSpec) -> Json:
    out = annotations_json(spec.annotations)
    if spec.data:
        out["Data"] = base64.b64encode(spec.data).decode()
    return out


def _add_templating(out: Json, spec: api.SecretSpec | api.ConfigSpec) -> None:
    if spec.HasField("templating"):
        out["Templating"] = driver_json(spec.templating)


def secret_spec(fields: Fields) -> api.SecretSpec:
    """A SecretSpec from a create or update request."""
    spec = api.SecretSpec()
    _fill(fields, spec)
    driver = fields.maybe_child("Driver")
    if driver is not None:
        fill_driver(driver, spec.driver)
    return spec


def config_spec(fields: Fields) -> api.ConfigSpec:
    """A ConfigSpec from a create or update request."""
    spec = api.ConfigSpec()
    _fill(fields, spec)
    return spec


def _fill(fields: Fields, spec: api.SecretSpec | api.ConfigSpec) -> None:
    spec.annotations.name = fields.text("Name")
    spec.annotations.labels.update(fields.mapping("Labels"))
    spec.data = read_base64(fields.text("Data"))
    templating = fields.maybe_child("Templating")
    if templating is not None:
        fill_driver(templating, spec.templating)


def fill_driver(fields: Fields, driver: api.Driver) -> None:
    """Name and options of a driver; it counts as given even when empty."""
    driver.SetInParent()
    driver.name = fields.text("Name")
    driver.options.update(fields.mapping("Options"))


def read_base64(text: str) -> bytes:
    """Bytes in base64; junk is refused at the place Go names."""
    text = text.replace("\n", "").replace("\r", "")
    try:
        # Python lets padding after whole quanta pass.
        if len(text) % 4:
            raise binascii.Error("length")
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        place = next((at for at, char in enumerate(text) if char not in alphabet), len(text))
        # Go reads whole quanta: what is missing at the end is missed where the quantum began.
        if place == len(text):
            place -= place % 4
        raise bad_request(f"illegal base64 data at input byte {place}") from None
