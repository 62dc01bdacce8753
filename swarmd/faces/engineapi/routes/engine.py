"""Paths that belong to a container engine: known by shape, so that a node without one can say so.

With an engine everything unknown here is passed on anyway, and the engine says what exists.
"""

from __future__ import annotations

_GET = """
/containers/json /containers/*/export /containers/*/changes /containers/*/json
/containers/*/top /containers/*/logs /containers/*/stats /containers/*/attach/ws
/containers/*/archive /containers/*/checkpoints /exec/*/json /images/json /images/search
/images/get /images/*/get /images/*/history /images/*/json /images/*/attestations
/distribution/*/json /volumes /volumes/* /plugins /plugins/*/json /plugins/privileges /system/df
"""
_POST = """
/containers/create /containers/*/kill /containers/*/pause /containers/*/unpause
/containers/*/restart /containers/*/start /containers/*/stop /containers/*/wait
/containers/*/resize /containers/*/attach /containers/*/copy /containers/*/exec /exec/*/start
/exec/*/resize /containers/*/rename /containers/*/update /containers/prune
/containers/*/checkpoints /commit /images/load /images/create /images/*/push /images/*/tag
/images/prune /build /build/prune /build/cancel /session /grpc /auth /volumes/create
/volumes/prune /networks/*/connect /networks/*/disconnect /plugins/*/enable /plugins/*/disable
/plugins/pull /plugins/*/push /plugins/*/upgrade /plugins/*/set /plugins/create
"""
_PUT = "/containers/*/archive /volumes/*"
_DELETE = "/containers/* /containers/*/checkpoints/* /images/* /volumes/* /plugins/*"
_HEAD = "/containers/*/archive"


def _patterns(text: str) -> list[list[str]]:
    return [shape.split("/")[1:] for shape in text.split()]


_SHAPES = {
    "GET": _patterns(_GET),
    "POST": _patterns(_POST),
    "PUT": _patterns(_PUT),
    "DELETE": _patterns(_DELETE),
    "HEAD": _patterns(_HEAD),
}
# Image, distribution and plugin names contain slashes.
_DEEP = ("images", "distribution", "plugins")


def is_engine_path(method: str, path: str) -> bool:
    """Whether `method` and `path` (without version) are an endpoint of container engines."""
    parts = path.split("/")[1:]
    return any(_fits(shape, parts) for shape in _SHAPES.get(method, ()))


def _fits(shape: list[str], parts: list[str]) -> bool:
    if len(parts) > len(shape) and shape[0] in _DEEP and "*" in shape:
        extra = len(parts) - len(shape)
        parts = [parts[0], "/".join(parts[1 : 2 + extra]), *parts[2 + extra :]]
    if len(parts) != len(shape):
        return False
    return all(
        part != "" if want == "*" else part == want for want, part in zip(shape, parts, strict=True)
    )
