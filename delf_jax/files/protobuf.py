"""Protocol-buffers messages of other projects, without generated code: classes made from the text of a schema."""

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_MESSAGE = re.compile(r"message (\w+) \{(.*?)\}", re.DOTALL)
_SYNTAX = re.compile(r'syntax = "(\w+)";')
_FIELD = re.compile(r"(optional |repeated |)(\w+) (\w+) = (\d+)(?: \[(packed|default) = (\S+)\])?;")


def message_class(schema: str, name: str) -> Any:
    """The class of the messages called ``name`` in a schema.

    Args:
        schema: text as in a ``.proto`` file: flat messages of numbers, strings, bytes and other messages, of proto2
            unless it says ``syntax = "proto3";``. Fields that it leaves out are skipped when a message is read.

    >>> point = message_class("message Point { optional float x = 1; optional float y = 2; }", "Point")
    >>> parse(point, point(x=3, y=4).SerializeToString()).y
    4.0
    """
    syntax = _SYNTAX.search(schema)
    file = descriptor_pb2.FileDescriptorProto(name="schema.proto", package="delf_jax")
    file.syntax = syntax[1] if syntax else "proto2"
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, body in _MESSAGE.findall(schema):
        described = file.message_type.add(name=message)
        for label, kind, field, number, option, value in _FIELD.findall(body):
            added = described.field.add(name=field, number=int(number))
            added.label = kinds.LABEL_REPEATED if label == "repeated " else kinds.LABEL_OPTIONAL
            added.type = getattr(kinds, f"TYPE_{kind.upper()}", kinds.TYPE_MESSAGE)
            if added.type == kinds.TYPE_MESSAGE:
                added.type_name = f".delf_jax.{kind}"
            if option == "packed":
                added.options.packed = value == "true"
            elif option == "default":
                added.default_value = value
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"delf_jax.{name}"))


def parse(message: Any, data: bytes) -> Any:
    """Reads the bytes of one message.

    Args:
        message: its class, from ``message_class``.

    Raises:
        ValueError: the bytes are not a message of protocol buffers.
    """
    try:
        return message.FromString(data)
    except DecodeError:
        raise ValueError("not a message of protocol buffers") from None
