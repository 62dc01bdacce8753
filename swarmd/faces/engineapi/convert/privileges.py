"""Privileges of a container spec."""

from __future__ import annotations

import base64

from swarmd import api
from swarmd.faces.engineapi.convert.common import Json, numbers, put, words
from swarmd.faces.engineapi.convert.fields import Fields
from swarmd.faces.engineapi.convert.secret import read_base64
from swarmd.faces.engineapi.errors import bad_request

_seccomp_word = words(api.Privileges.SeccompOpts.SeccompMode)
_apparmor_word = words(api.Privileges.AppArmorOpts.AppArmorMode)
_SECCOMP = numbers(api.Privileges.SeccompOpts.SeccompMode)
_APPARMOR = numbers(api.Privileges.AppArmorOpts.AppArmorMode)
_SELINUX = (("User", "user"), ("Role", "role"), ("Type", "type"), ("Level", "level"))


def privileges_json(privileges: api.Privileges) -> Json:
    """All of it; the two oldest members are null when unset."""
    out: Json = {"CredentialSpec": None, "SELinuxContext": None}
    if privileges.HasField("credential_spec"):
        spec = privileges.credential_spec
        out["CredentialSpec"] = {
            "Config": spec.config,
            "File": spec.file,
            "Registry": spec.registry,
        }
    if privileges.HasField("selinux_context"):
        context = privileges.selinux_context
        shown: Json = {"Disable": context.disable}
        shown |= {name: getattr(context, field) for name, field in _SELINUX}
        out["SELinuxContext"] = shown
    if privileges.HasField("seccomp"):
        seccomp: Json = {"Mode": _seccomp_word(privileges.seccomp.mode)}
        put(seccomp, "Profile", base64.b64encode(privileges.seccomp.profile).decode())
        out["Seccomp"] = seccomp
    if privileges.HasField("apparmor"):
        out["AppArmor"] = {"Mode": _apparmor_word(privileges.apparmor.mode)}
    out["NoNewPrivileges"] = privileges.no_new_privileges
    return out


def fill_privileges(fields: Fields, privileges: api.Privileges) -> None:
    """Privileges of a request; unknown mode words count as default, as in stock engines."""
    privileges.SetInParent()
    credential = fields.maybe_child("CredentialSpec")
    if credential is not None:
        _fill_credential(credential, privileges.credential_spec)
    selinux = fields.maybe_child("SELinuxContext")
    if selinux is not None:
        privileges.selinux_context.SetInParent()
        privileges.selinux_context.disable = selinux.flag("Disable")
        for name, field in _SELINUX:
            setattr(privileges.selinux_context, field, selinux.text(name))
    seccomp = fields.maybe_child("Seccomp")
    if seccomp is not None:
        privileges.seccomp.SetInParent()
        privileges.seccomp.mode = _SECCOMP.get(seccomp.text("Mode"), 0)
        privileges.seccomp.profile = read_base64(seccomp.text("Profile"))
    apparmor = fields.maybe_child("AppArmor")
    if apparmor is not None:
        privileges.apparmor.SetInParent()
        privileges.apparmor.mode = _APPARMOR.get(apparmor.text("Mode"), 0)
    privileges.no_new_privileges = fields.flag("NoNewPrivileges")


def _fill_credential(fields: Fields, spec: api.Privileges.CredentialSpec) -> None:
    given = [(field, fields.text(field.capitalize())) for field in ("config", "file", "registry")]
    given = [(field, text) for field, text in given if text]
    if not given:
        text = 'must either provide "file", "registry", or "config" for credential spec'
        raise bad_request(f"invalid CredentialSpec: {text}")
    if len(given) > 1:
        names = [f'"{field}"' for field, _ in given]
        first = names[0] if len(names) == 2 else ", ".join(names[:-1]) + ","
        raise bad_request(
            f"invalid CredentialSpec: cannot specify both {first} and {names[-1]} credential specs"
        )
    ((field, text),) = given
    setattr(spec, field, text)
