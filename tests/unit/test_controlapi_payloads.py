"""Secrets and configs side by side (BEHAVIOUR 4.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from swarmd import api
from swarmd.base.errors import SwarmError
from tests.harness.controlroom import PEER, Room, a_service_spec, told

DATA = b"never to be seen again"


@dataclass(frozen=True)
class Kind:
    """The messages of one of the two kinds."""

    word: str
    type: Any
    limit: int

    def message(self, verb: str, **fields: object) -> Any:
        plural = "s" if verb == "List" else ""
        return getattr(api, f"{verb}{self.word.capitalize()}{plural}Request")(**fields)

    async def call(self, room: Room, verb: str, **fields: object) -> Any:
        plural = "s" if verb == "List" else ""
        method = getattr(room.control, f"{verb.lower()}_{self.word}{plural}")
        reply = await method(self.message(verb, **fields), PEER)
        return getattr(reply, self.word + plural, None)

    async def make(self, room: Room, name: str = "one", data: bytes = DATA, **more: Any) -> Any:
        spec = {"annotations": {"name": name, **more}, "data": data}
        return await self.call(room, "Create", spec=spec)

    async def refusal(self, room: Room, verb: str, **fields: object) -> tuple[str, str]:
        before = room.committer.proposals
        with pytest.raises(SwarmError) as caught:
            await self.call(room, verb, **fields)
        assert room.committer.proposals == before
        return told(caught.value)


SECRET = Kind("secret", api.Secret, 512000)
CONFIG = Kind("config", api.Config, 1024000)
both = pytest.mark.parametrize("kind", [SECRET, CONFIG], ids=["secret", "config"])
NAME_TEXT = (
    "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character "
    "must be [a-zA-Z0-9]"
)


@both
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "name must be provided"),
        ("-a", NAME_TEXT),
        ("a.", NAME_TEXT),
        ("a b", NAME_TEXT),
        ("a\n", NAME_TEXT),
        ("ä", NAME_TEXT),
        ("a" * 65, NAME_TEXT),
    ],
)
async def test_bad_names(kind: Kind, name: str, text: str) -> None:
    spec = {"annotations": {"name": name}, "data": b"x"}
    assert await kind.refusal(Room(), "Create", spec=spec) == ("INVALID_ARGUMENT", text)


@both
@pytest.mark.parametrize("name", ["a", "a.b", "A-_.z", "0", "a" * 64])
async def test_good_names(kind: Kind, name: str) -> None:
    assert (await kind.make(Room(), name)).spec.annotations.name == name


@both
async def test_sizes(kind: Kind) -> None:
    room = Room()
    text = f"{kind.word} data must be larger than 0 and less than {kind.limit} bytes"
    for size in (0, kind.limit, kind.limit + 1):
        spec = {"annotations": {"name": "a"}, "data": b"x" * size}
        assert await kind.refusal(room, "Create", spec=spec) == ("INVALID_ARGUMENT", text)
    await kind.make(room, "small", b"x")
    await kind.make(room, "large", b"x" * (kind.limit - 1))


@both
async def test_names_are_unique_without_regard_to_case(kind: Kind) -> None:
    room = Room()
    await kind.make(room)
    spec = {"annotations": {"name": "ONE"}, "data": b"x"}
    answer = await kind.refusal(room, "Create", spec=spec)
    assert answer == ("ALREADY_EXISTS", f"{kind.word} ONE already exists")


@both
async def test_empty_requests(kind: Kind) -> None:
    room = Room()
    bad = ("INVALID_ARGUMENT", "invalid argument")
    assert await kind.refusal(room, "Create") == bad
    no_id = ("INVALID_ARGUMENT", f"{kind.word} ID must be provided")
    assert await kind.refusal(room, "Get") == no_id
    assert await kind.refusal(room, "Remove") == no_id
    id = {f"{kind.word}_id": "x"}
    version = {f"{kind.word}_version": {"index": 1}}
    assert await kind.refusal(room, "Update", **version, spec={}) == bad
    assert await kind.refusal(room, "Update", **id, spec={}) == bad
    assert await kind.refusal(room, "Update", **id, **version) == bad
    missing = ("NOT_FOUND", f"{kind.word} x not found")
    assert await kind.refusal(room, "Get", **id) == missing
    assert await kind.refusal(room, "Update", **id, **version, spec={}) == missing
    answer = await kind.refusal(room, "Remove", **id)
    assert answer == ("NOT_FOUND", f"could not find {kind.word} x")


@both
async def test_only_labels_can_be_updated(kind: Kind) -> None:
    room = Room()
    made = await kind.make(room, labels={"old": "1"})
    stored = room.there(kind.type, made.id)

    def fields(**spec: object) -> dict[str, object]:
        version = room.version(stored)
        return {f"{kind.word}_id": made.id, f"{kind.word}_version": version, "spec": spec}

    only = ("INVALID_ARGUMENT", "only updates to Labels are allowed")
    renamed = fields(annotations={"name": "two"})
    assert await kind.refusal(room, "Update", **renamed) == only
    assert await kind.refusal(room, "Update", **fields(annotations={"name": "One"})) == only
    changed = fields(annotations={"name": "one"}, data=b"other")
    assert await kind.refusal(room, "Update", **changed) == only
    stale = fields(annotations={"name": "one"})
    stale[f"{kind.word}_version"] = {"index": 3}
    assert await kind.refusal(room, "Update", **stale) == ("UNKNOWN", "update out of sequence")
    same = fields(annotations={"name": "one", "labels": {"new": "2"}}, data=DATA)
    reply = await kind.call(room, "Update", **same)
    assert dict(reply.spec.annotations.labels) == {"new": "2"}
    without = fields(annotations={"name": "one"}, templating={"name": "golang"})
    await kind.call(room, "Update", **without)
    last = room.there(kind.type, made.id).spec
    assert last.data == DATA and not last.annotations.labels
    assert not last.HasField("templating")


@both
async def test_removal_names_the_users(kind: Kind) -> None:
    room = Room()
    made = await kind.make(room)
    for number in (1, 2):
        spec = a_service_spec(f"web{number}")
        reference = getattr(spec.task.container, f"{kind.word}s").add()
        setattr(reference, f"{kind.word}_id", made.id)
        room.add(api.Service(id=f"s{number}", spec=spec))
    id = {f"{kind.word}_id": made.id}
    answer = await kind.refusal(room, "Remove", **id)
    text = f"{kind.word} 'one' is in use by the following services: web1, web2"
    assert answer == ("INVALID_ARGUMENT", text)
    room.committer.now(lambda tx: tx.delete(api.Service, "s1"))
    answer = await kind.refusal(room, "Remove", **id)
    text = f"{kind.word} 'one' is in use by the following service: web2"
    assert answer == ("INVALID_ARGUMENT", text)
    room.committer.now(lambda tx: tx.delete(api.Service, "s2"))
    await kind.call(room, "Remove", **id)
    assert room.get(kind.type, made.id) is None


@both
@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "Beta alpha alps"),
        ({"names": ["beta"]}, "Beta"),
        ({"name_prefixes": ["AL"]}, "alpha alps"),
        ({"names": ["beta"], "name_prefixes": ["alp"]}, "Beta alpha alps"),
        ({"labels": {"x": "1"}}, "alpha"),
        ({"name_prefixes": ["b"], "labels": {"x": ""}}, ""),
        ({"id_prefixes": ["nothing"]}, ""),
    ],
)
async def test_lists(kind: Kind, filters: dict[str, object], names: str) -> None:
    room = Room()
    await kind.make(room, "alpha", labels={"x": "1"})
    await kind.make(room, "alps")
    made = await kind.make(room, "Beta")
    listed = await kind.call(room, "List", filters=filters)
    assert " ".join(sorted(entry.spec.annotations.name for entry in listed)) == names
    listed = await kind.call(room, "List", filters={"id_prefixes": [made.id[:12]]})
    assert [entry.id for entry in listed] == [made.id]


async def test_no_reply_carries_secret_data() -> None:
    room = Room()
    made = await SECRET.make(room)
    version = room.version(room.there(api.Secret, made.id))
    spec = {"annotations": {"name": "one"}, "data": DATA}
    replies = [
        made,
        await SECRET.call(room, "Get", secret_id=made.id),
        *(await SECRET.call(room, "List")),
        await SECRET.call(room, "Update", secret_id=made.id, secret_version=version, spec=spec),
    ]
    assert len(replies) == 4
    assert all(DATA not in reply.SerializeToString() for reply in replies)
    assert room.there(api.Secret, made.id).spec.data == DATA


async def test_config_data_is_shown() -> None:
    room = Room()
    made = await CONFIG.make(room)
    assert (await CONFIG.call(room, "Get", config_id=made.id)).spec.data == DATA
    assert (await CONFIG.call(room, "List"))[0].spec.data == DATA


async def test_internal_secrets_are_not_listed() -> None:
    room = Room()
    spec = api.SecretSpec(annotations=api.Annotations(name="x"), data=b"x")
    room.add(api.Secret(id="s", spec=spec, internal=True))
    assert not await SECRET.call(room, "List")
    assert (await SECRET.call(room, "Get", secret_id="s")).id == "s"


async def test_secret_drivers() -> None:
    room = Room()
    spec = {"annotations": {"name": "a"}, "driver": {}}
    answer = await SECRET.refusal(room, "Create", spec=spec)
    assert answer == ("INVALID_ARGUMENT", "secret driver must have a name")
    spec["driver"] = {"name": "vault"}
    answer = await SECRET.refusal(room, "Create", spec=spec)
    assert answer == ("UNKNOWN", 'plugin "vault" not found')
    room.plugins.installed.add(("vault", "secretprovider"))
    made = await SECRET.call(room, "Create", spec=spec)
    assert made.spec.driver.name == "vault"
