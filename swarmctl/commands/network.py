"""Networks: ls, inspect, create, rm."""

from __future__ import annotations

import json
import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from swarmctl.command import ONE, SOME, Call, Command
from swarmctl.commands.lookup import network_names, path_of
from swarmctl.errors import ApiError, CliError
from swarmctl.flags import Flag, Given
from swarmctl.gotext import Stamp
from swarmctl.human import natural_key, short_id
from swarmctl.kinds import BOOL, LABELS, MAP, STRING, STRINGS, pairs
from swarmctl.options import INSPECT_FORMAT_HELP, filter_query, filtered, formatted, quiet
from swarmctl.output import Listing, inspect, stdin_text
from swarmctl.shapes import NETWORK, TIME, typed
from swarmd.base.gotemplate import Method, Struct

_LISTING = Listing(
    {
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "CreatedAt": "CREATED AT",
    },
    "table {{.ID}}\\t{{.Name}}\\t{{.Driver}}\\t{{.Scope}}",
    "network_id: {{.ID}}\\nname: {{.Name}}\\ndriver: {{.Driver}}\\nscope: {{.Scope}}\\n",
    "network_id: {{.ID}}",
    label=True,
)
_INGRESS_WARNING = (
    "WARNING! Before removing the routing-mesh network, make sure all the nodes in your swarm run "
    "the same docker engine version. Otherwise, removal may not be effective and functionality of "
    "newly create ingress networks will be impaired.\nAre you sure you want to continue? [y/N] "
)


def _ls(call: Call) -> None:
    networks = call.client.get("/networks", filter_query(call.given["filter"])).json()
    networks.sort(key=lambda network: natural_key(network.get("Name", "")))
    rows = [_row(network, call.given["no-trunc"]) for network in networks]
    _LISTING.print(rows, call.given["format"], call.given["quiet"], call.out)


def _row(network: dict[str, Any], whole: bool) -> Struct:
    labels = network.get("Labels") or {}
    id = network.get("Id", "")
    return Struct(
        "*network.networkContext",
        {
            "ID": id if whole else short_id(id),
            "Name": network.get("Name", ""),
            "Driver": network.get("Driver", ""),
            "Scope": network.get("Scope", ""),
            "IPv4": str(bool(network.get("EnableIPv4"))).lower(),
            "IPv6": str(bool(network.get("EnableIPv6"))).lower(),
            "Internal": str(bool(network.get("Internal"))).lower(),
            "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
            "Label": Method(lambda name: labels.get(str(name), "")),
            "CreatedAt": str(Stamp(network.get("Created") or TIME)),
        },
    )


def _inspect(call: Call) -> None:
    query = {"verbose": "true"} if call.given["verbose"] else None

    def fetch(reference: str) -> tuple[Struct, str]:
        raw = call.client.get(path_of("network", reference), query).text()
        return typed(json.loads(raw), NETWORK), raw

    inspect(call.args, call.given["format"], fetch, call.out)


def _create(call: Call) -> None:
    given = call.given
    request: dict[str, Any] = {
        "Driver": given["driver"],
        "Scope": given["scope"],
        "IPAM": ipam(given),
        "Internal": given["internal"],
        "Attachable": given["attachable"],
        "Ingress": given["ingress"],
        "ConfigOnly": given["config-only"],
        "ConfigFrom": {"Network": given["config-from"]} if given["config-from"] else None,
        "Options": pairs(given["opt"]),
        "Labels": pairs(given["label"]),
        "Name": call.args[0],
    }
    for flag, field in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if flag in given.changed:
            request[field] = given[flag]
    if [int(part) for part in call.client.api_version.split(".")] < [1, 44]:
        request["CheckDuplicate"] = True  # later daemons always check
    reply = call.client.post("/networks/create", request).json()
    call.say(reply.get("Id", ""))


_Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address


def _subnet(text: str) -> _Network:
    try:
        if "/" in text:
            return ip_network(text, strict=False)
    except ValueError:
        pass
    raise CliError(f"invalid subnet: invalid CIDR address: {text}")


def _address(text: str) -> _Address | None:
    head, slash, _ = text.partition("/")
    try:
        if slash:
            ip_network(text, strict=False)
        return ip_address(head)
    except ValueError:
        if slash:
            raise CliError(f"invalid CIDR address: {text}") from None
        return None


def _contains(subnet: str, text: str) -> bool:
    network, address = _subnet(subnet), _address(text)
    return address is not None and address.version == network.version and address in network


def ipam(given: Given) -> dict[str, Any]:
    """Address management as asked for: ranges, gateways and aux addresses by subnet.

    A subnet that is no CIDR is passed on when nothing has to be matched with it; the daemon
    refuses it in its own words.
    """
    subnets, ranges, gateways = given["subnet"], given["ip-range"], given["gateway"]
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise CliError("every ip-range or gateway must have a corresponding subnet")
    configs: dict[str, dict[str, Any]] = {}
    for subnet in subnets:
        if any(_contains(subnet, other) or _contains(other, subnet) for other in configs):
            raise CliError("multiple overlapping subnet configuration is not supported")
        configs[subnet] = {"Subnet": subnet}
    for text in ranges:
        if "/" not in text:
            raise CliError(f"invalid CIDR address: {text}")
        _place(configs, "IPRange", "range", "ranges", text)
    for text in gateways:
        _place(configs, "Gateway", "gateway", "gateways", text)
    for key, text in sorted(pairs(given["aux-address"]).items()):
        homes = [config for subnet, config in configs.items() if _contains(subnet, text)]
        if not homes:
            raise CliError(f"no matching subnet for aux-address {text}")
        for config in homes:
            config.setdefault("AuxiliaryAddresses", {})[key] = text
    return {
        "Driver": given["ipam-driver"],
        "Options": pairs(given["ipam-opt"]),
        "Config": list(configs.values()),
    }


def _place(
    configs: dict[str, dict[str, Any]], field: str, word: str, words: str, text: str
) -> None:
    homes = [(subnet, config) for subnet, config in configs.items() if _contains(subnet, text)]
    if not homes:
        raise CliError(f"no matching subnet for {word} {text}")
    for subnet, config in homes:
        if field in config:
            where = "on" if word == "range" else "for"
            raise CliError(
                f"cannot configure multiple {words} ({text}, {config[field]}) {where} the same "
                f"subnet ({subnet})"
            )
        config[field] = text


def _rm(call: Call) -> None:
    failed = False
    for name in call.args:
        path = path_of("network", name)
        if _is_ingress(call, path) and not _confirmed(call):
            continue
        try:
            call.client.delete(path)
        except CliError as error:
            missing = isinstance(error, ApiError) and error.code == 404
            if not (missing and call.given["force"]):
                print(error.message, file=call.err)
                failed = True
            continue
        call.say(name)
    if failed:
        call.out.flush()
        raise CliError("exit status 1")


def _is_ingress(call: Call, path: str) -> bool:
    try:
        return bool(call.client.get(path).json().get("Ingress"))
    except ApiError:
        return False


def _confirmed(call: Call) -> bool:
    call.out.write(_INGRESS_WARNING)
    call.out.flush()
    return stdin_text().lower() == "y" if sys.stdin else False


def _switch(name: str, help: str, short: str = "") -> Flag:
    return Flag(name, BOOL, help, short=short, value=False)


LS = Command(
    "ls",
    "[OPTIONS]",
    "List networks",
    _ls,
    flags=(
        filtered('Provide filter values (e.g. "driver=bridge")'),
        formatted(),
        _switch("no-trunc", "Do not truncate the output"),
        quiet("Only display network IDs"),
    ),
    aliases=("list",),
)
INSPECT = Command(
    "inspect",
    "[OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    _inspect,
    flags=(
        formatted(INSPECT_FORMAT_HELP, "f"),
        _switch("verbose", "Verbose output for diagnostics", "v"),
    ),
    arity=SOME,
    complete=network_names,
)
CREATE = Command(
    "create",
    "[OPTIONS] NETWORK",
    "Create a network",
    _create,
    flags=(
        _switch("attachable", "Enable manual container attachment"),
        Flag(
            "aux-address",
            MAP,
            "Auxiliary IPv4 or IPv6 addresses used by Network driver",
            default="map[]",
        ),
        Flag(
            "config-from",
            STRING,
            "The network from which to copy the configuration",
            value="",
        ),
        _switch("config-only", "Create a configuration only network"),
        Flag(
            "driver",
            STRING,
            "Driver to manage the Network",
            short="d",
            default="bridge",
            value="bridge",
        ),
        Flag("gateway", STRINGS, "IPv4 or IPv6 Gateway for the master subnet"),
        _switch("ingress", "Create swarm routing-mesh network"),
        _switch("internal", "Restrict external access to the network"),
        Flag("ip-range", STRINGS, "Allocate container ip from a sub-range"),
        Flag(
            "ipam-driver",
            STRING,
            "IP Address Management Driver",
            default="default",
            value="default",
        ),
        Flag("ipam-opt", MAP, "Set IPAM driver specific options", default="map[]"),
        Flag("ipv4", BOOL, "Enable or disable IPv4 address assignment", default="true", value=True),
        _switch("ipv6", "Enable or disable IPv6 address assignment"),
        Flag("label", LABELS, "Set metadata on a network"),
        Flag("opt", MAP, "Set driver specific options", short="o", default="map[]"),
        Flag("scope", STRING, "Control the network's scope", value=""),
        Flag("subnet", STRINGS, "Subnet in CIDR format that represents a network segment"),
    ),
    arity=ONE,
)
RM = Command(
    "rm",
    "NETWORK [NETWORK...]",
    "Remove one or more networks",
    _rm,
    flags=(_switch("force", "Do not error if the network does not exist", "f"),),
    arity=SOME,
    aliases=("remove",),
    complete=network_names,
)
