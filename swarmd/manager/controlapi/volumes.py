"""Cluster volumes, kept as opaque objects: nothing here talks to a storage plugin.

Stock managers older than 23.0 do not know the kind. One that applies an entry with a volume
in it drops the whole entry, and other callers' changes may travel in the same one, so no
volume is written while such a manager is a member (PROTOCOL 8).
"""

from __future__ import annotations

import re

from swarmd import api
from swarmd.base.entropy import new_id
from swarmd.base.errors import FailedPrecondition, InvalidArgument, NotFound
from swarmd.cluster.store import NameConflict, Transaction, View, edit
from swarmd.manager.controlapi.filters import matches_volume
from swarmd.manager.controlapi.seams import Calls, NameTaken, listed, not_found

ENGINE_MAJOR_MIN = 23
_FIXED_MESSAGES = (
    ("AccessibilityRequirements", "AccessibilityRequirements"),
    ("driver", "Driver"),
    ("access_mode", "AccessMode"),
    ("secrets", "Secrets"),
    ("capacity_range", "CapacityRange"),
)


class VolumeCalls(Calls):
    """CreateVolume, GetVolume, ListVolumes, UpdateVolume, RemoveVolume."""

    async def create_volume(
        self, request: api.CreateVolumeRequest, peer: object
    ) -> api.CreateVolumeResponse:
        """Store a volume's wish."""
        if not request.HasField("spec"):
            raise InvalidArgument("spec must not be nil")
        _check_volume_spec(request.spec)
        wanted = api.Volume(id=new_id(self.needs.entropy), spec=request.spec)

        def change(tx: Transaction) -> api.Volume:
            self._check_managers(tx)
            ids = [entry.secret for entry in request.spec.secrets]
            missing = [id for id in ids if tx.get(api.Secret, id) is None]
            if missing:
                word, joined = listed(missing, "secret")
                raise InvalidArgument(f"{word} not found: {joined}")
            try:
                return tx.create(wanted)
            except NameConflict:
                raise NameTaken from None

        return api.CreateVolumeResponse(volume=await self.needs.committer.update(change))

    async def get_volume(
        self, request: api.GetVolumeRequest, peer: object
    ) -> api.GetVolumeResponse:
        """One volume, by id."""
        volume = self.needs.store.view().get(api.Volume, request.volume_id)
        if volume is None:
            raise NotFound(not_found("volume", request.volume_id))
        return api.GetVolumeResponse(volume=volume)

    async def list_volumes(
        self, request: api.ListVolumesRequest, peer: object
    ) -> api.ListVolumesResponse:
        """All volumes that match."""
        found = self.needs.store.view().all(api.Volume)
        if request.HasField("filters"):
            found = [volume for volume in found if matches_volume(request.filters, volume)]
        return api.ListVolumesResponse(volumes=found)

    async def update_volume(
        self, request: api.UpdateVolumeRequest, peer: object
    ) -> api.UpdateVolumeResponse:
        """Change labels and availability; everything else is for life."""
        if not request.volume_id:
            raise InvalidArgument("VolumeID must not be empty")
        if not request.HasField("spec"):
            raise InvalidArgument("Spec must not be empty")
        if not request.HasField("volume_version"):
            raise InvalidArgument("VolumeVersion must not be empty")

        def change(tx: Transaction) -> api.Volume:
            self._check_managers(tx)
            stored = tx.get(api.Volume, request.volume_id)
            if stored is None:
                raise NotFound(not_found("volume", request.volume_id))
            _check_fixed(stored.spec, request.spec)
            volume = edit(stored)
            volume.meta.version.CopyFrom(request.volume_version)
            labels = volume.spec.annotations.labels
            labels.clear()
            labels.update(request.spec.annotations.labels)
            volume.spec.availability = request.spec.availability
            return tx.update(volume)

        return api.UpdateVolumeResponse(volume=await self.needs.committer.update(change))

    async def remove_volume(
        self, request: api.RemoveVolumeRequest, peer: object
    ) -> api.RemoveVolumeResponse:
        """Delete a volume that no storage plugin has made, or by force; else mark it.

        A marked volume waits for a manager that can talk to its plugin.
        """

        def change(tx: Transaction) -> None:
            self._check_managers(tx)
            stored = tx.get(api.Volume, request.volume_id)
            if stored is None:
                raise NotFound(not_found("volume", request.volume_id))
            if not request.force and stored.publish_status:
                raise FailedPrecondition("volume is still in use")
            if request.force or not stored.volume_info.volume_id:
                tx.delete(api.Volume, stored.id)
                return
            volume = edit(stored)
            volume.pending_delete = True
            tx.update(volume)

        await self.needs.committer.update(change)
        return api.RemoveVolumeResponse()

    def _check_managers(self, view: View) -> None:
        old = []
        for member in self.needs.membership.members():
            node = view.get(api.Node, member.node_id)
            if node is not None and _is_too_old(node.description.engine.engine_version):
                old.append(node.id)
        if old:
            raise FailedPrecondition(
                "cluster volumes need every manager to run engine "
                f"{ENGINE_MAJOR_MIN}.0 or later; older: {', '.join(sorted(old))}"
            )


def _is_too_old(version: str) -> bool:
    major = re.match(r"\d+", version)
    return major is not None and int(major.group()) < ENGINE_MAJOR_MIN


def _check_volume_spec(spec: api.VolumeSpec) -> None:
    if not spec.HasField("driver"):
        raise InvalidArgument("driver must be specified")
    if not spec.annotations.name:
        raise InvalidArgument("meta: name must be provided")
    if not spec.HasField("access_mode"):
        raise InvalidArgument("AccessMode must not be nil")
    if spec.access_mode.WhichOneof("access_type") is None:
        raise InvalidArgument("Volume AccessMode must specify either Mount or Block access type")


def _check_fixed(stored: api.VolumeSpec, wanted: api.VolumeSpec) -> None:
    if wanted.annotations.name != stored.annotations.name:
        raise InvalidArgument("Name cannot be updated")
    if wanted.group != stored.group:
        raise InvalidArgument("Group cannot be updated")
    for field, shown in _FIXED_MESSAGES:
        same = getattr(wanted, field) == getattr(stored, field)
        if field != "secrets":
            same = same and wanted.HasField(field) == stored.HasField(field)
        if not same:
            raise InvalidArgument(f"{shown} cannot be updated")
