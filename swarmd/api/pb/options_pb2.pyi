from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor
TLS_AUTHORIZATION_FIELD_NUMBER: _ClassVar[int]
tls_authorization: _descriptor.FieldDescriptor

class TLSAuthorization(_message.Message):
    __slots__ = ("roles", "insecure")
    ROLES_FIELD_NUMBER: _ClassVar[int]
    INSECURE_FIELD_NUMBER: _ClassVar[int]
    roles: _containers.RepeatedScalarFieldContainer[str]
    insecure: bool
    def __init__(self, roles: _Optional[_Iterable[str]] = ..., insecure: _Optional[bool] = ...) -> None: ...
