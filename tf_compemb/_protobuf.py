"""Protobuf messages declared with the fields that matter, in a pool of their own.

The classes that TensorFlow's packages generate import all of TensorFlow, which takes seconds. On
the wire only numbers and types of fields count. Fields that are not declared survive a round trip.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def new_file(name: str) -> Any:
    """A file to declare messages in."""
    return descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3")


def declare(parent: Any, message: str, **fields: tuple[int, str]) -> Any:
    """Adds a message.

    Args:
        parent: A file, or a message that it is nested in.
        message: Its name.
        **fields: Number and type of each field; the type is a scalar's name or a message's of the
            same file, after a `*` where the field is repeated. Enums are int32 on the wire.
    """
    nested = isinstance(parent, descriptor_pb2.DescriptorProto)
    declared = (parent.nested_type if nested else parent.message_type).add(name=message)
    for name, (number, kind) in fields.items():
        field = declared.field.add(name=name, number=number)
        field.label = field.LABEL_REPEATED if kind.startswith("*") else field.LABEL_OPTIONAL
        kind = kind.lstrip("*")
        scalar = f"TYPE_{kind.upper()}"
        if hasattr(field, scalar):
            field.type = getattr(field, scalar)
        else:
            field.type, field.type_name = field.TYPE_MESSAGE, kind
    return declared


def declare_map(message: Any, name: str, number: int, value: str) -> None:
    """Adds a map from strings, which is a repeated nested message with a key and a value."""
    entry = "".join(part.capitalize() for part in name.split("_")) + "Entry"
    nested = declare(message, entry, key=(1, "string"), value=(2, value))
    nested.options.map_entry = True
    message.field.add(name=name, number=number, label=3, type=11, type_name=entry)


def message_classes(file: Any) -> dict[str, Any]:
    """The class of each of the file's messages."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{file.package}.{message.name}")
        )
        for message in file.message_type
    }
