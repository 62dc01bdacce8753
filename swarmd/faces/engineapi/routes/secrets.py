"""/secrets and /configs: the same calls on two kinds."""

from __future__ import annotations

from aiohttp import web

from swarmd import api
from swarmd.faces.engineapi.call import Call
from swarmd.faces.engineapi.context import Context
from swarmd.faces.engineapi.convert.secret import (
    config_json,
    config_spec,
    secret_json,
    secret_spec,
)
from swarmd.faces.engineapi.errors import bad_request
from swarmd.faces.engineapi.filters import config_filters, secret_filters
from swarmd.faces.engineapi.lookups import CALL_SECONDS, CONFIG, SECRET, find
from swarmd.faces.engineapi.routes import Route, Table

_TEMPLATING_SINCE = (1, 37)
_SECRETS_SINCE = (1, 25)
_CONFIGS_SINCE = (1, 30)


async def list_secrets(context: Context, call: Call) -> web.StreamResponse:
    """Secrets that pass the filters, without their data."""
    filters = secret_filters(call.filters())
    reply = await context.ask("Control/ListSecrets", api.ListSecretsRequest(filters=filters))
    return call.replies.json([secret_json(secret) for secret in reply.secrets])


async def list_configs(context: Context, call: Call) -> web.StreamResponse:
    """Configs that pass the filters."""
    filters = config_filters(call.filters())
    reply = await context.ask("Control/ListConfigs", api.ListConfigsRequest(filters=filters))
    return call.replies.json([config_json(config) for config in reply.configs])


async def get_secret(context: Context, call: Call) -> web.StreamResponse:
    """One secret."""
    return call.replies.json(secret_json(await find(context.control(), SECRET, call.ident)))


async def get_config(context: Context, call: Call) -> web.StreamResponse:
    """One config."""
    return call.replies.json(config_json(await find(context.control(), CONFIG, call.ident)))


async def create_secret(context: Context, call: Call) -> web.StreamResponse:
    """Create a secret; its id."""
    spec = secret_spec(await call.fields("swarm.SecretSpec"))
    _check_templating(call, spec, "secret")
    reply = await context.ask("Control/CreateSecret", api.CreateSecretRequest(spec=spec))
    return call.replies.json({"ID": reply.secret.id}, 201)


async def create_config(context: Context, call: Call) -> web.StreamResponse:
    """Create a config; its id."""
    spec = config_spec(await call.fields("swarm.ConfigSpec"))
    _check_templating(call, spec, "config")
    reply = await context.ask("Control/CreateConfig", api.CreateConfigRequest(spec=spec))
    return call.replies.json({"ID": reply.config.id}, 201)


def _check_templating(call: Call, spec: api.SecretSpec | api.ConfigSpec, noun: str) -> None:
    if call.version < _TEMPLATING_SINCE and spec.HasField("templating"):
        version = f"{call.version[0]}.{call.version[1]}"
        raise bad_request(
            f"{noun} templating is not supported on the specified API version: {version}"
        )


async def update_secret(context: Context, call: Call) -> web.StreamResponse:
    """Replace a secret's spec; managers allow new labels only."""
    spec = secret_spec(await call.fields("swarm.SecretSpec"))
    version = _version(call, "secret")
    control = context.control()
    id = (await find(control, SECRET, call.ident)).id
    request = api.UpdateSecretRequest(secret_id=id, spec=spec)
    request.secret_version.index = version
    await control.unary("Control/UpdateSecret", request, timeout=CALL_SECONDS)
    return call.replies.empty()


async def update_config(context: Context, call: Call) -> web.StreamResponse:
    """Replace a config's spec; managers allow new labels only."""
    spec = config_spec(await call.fields("swarm.ConfigSpec"))
    version = _version(call, "config")
    control = context.control()
    id = (await find(control, CONFIG, call.ident)).id
    request = api.UpdateConfigRequest(config_id=id, spec=spec)
    request.config_version.index = version
    await control.unary("Control/UpdateConfig", request, timeout=CALL_SECONDS)
    return call.replies.empty()


def _version(call: Call, noun: str) -> int:
    text = call.query.get("version", "")
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 64):
        raise bad_request(f"invalid {noun} version")
    return int(text)


async def remove_secret(context: Context, call: Call) -> web.StreamResponse:
    """Remove a secret nothing uses."""
    control = context.control()
    id = (await find(control, SECRET, call.ident)).id
    request = api.RemoveSecretRequest(secret_id=id)
    await control.unary("Control/RemoveSecret", request, timeout=CALL_SECONDS)
    return call.replies.empty(204)


async def remove_config(context: Context, call: Call) -> web.StreamResponse:
    """Remove a config nothing uses."""
    control = context.control()
    id = (await find(control, CONFIG, call.ident)).id
    request = api.RemoveConfigRequest(config_id=id)
    await control.unary("Control/RemoveConfig", request, timeout=CALL_SECONDS)
    return call.replies.empty(204)


def _since(version: tuple[int, int], method: str, shape: str, route: Route) -> Route:
    """`route` for clients that know it; older ones are told."""
    path = shape.replace("*", "{id}")
    needs = f"{version[0]}.{version[1]}"

    async def guarded(context: Context, call: Call) -> web.StreamResponse:
        if call.version < version:
            raise bad_request(f"{method} {path} requires minimum API version {needs}")
        return await route(context, call)

    return guarded


def _table(noun: str, version: tuple[int, int], routes: dict[str, Route]) -> Table:
    shapes = {
        "list": ("GET", f"/{noun}"),
        "get": ("GET", f"/{noun}/*"),
        "create": ("POST", f"/{noun}/create"),
        "update": ("POST", f"/{noun}/*/update"),
        "remove": ("DELETE", f"/{noun}/*"),
    }
    return {shapes[name]: _since(version, *shapes[name], route) for name, route in routes.items()}


ROUTES: Table = {
    **_table(
        "secrets",
        _SECRETS_SINCE,
        {
            "list": list_secrets,
            "get": get_secret,
            "create": create_secret,
            "update": update_secret,
            "remove": remove_secret,
        },
    ),
    **_table(
        "configs",
        _CONFIGS_SINCE,
        {
            "list": list_configs,
            "get": get_config,
            "create": create_config,
            "update": update_config,
            "remove": remove_config,
        },
    ),
}
