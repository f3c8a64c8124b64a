"""What other projects' pickles may do here: name a few things, and take no more memory than their own length."""

import io
import pickletools

_MEMO = ("BINPUT", "LONG_BINPUT", "PUT")


def require_modest(file: io.BytesIO) -> None:
    """Refuses the pickle that begins at the file's place if it would make the unpickler take memory for nothing.

    A few bytes can ask for a memo of billions of entries or for a frame of any size. The file's place stays.

    Raises:
        ValueError: it does, or it is no pickle.
    """
    begin, size = file.tell(), len(file.getbuffer())
    # Texts of Python 2 may hold any byte, where genops wants ASCII; nothing else of its protocol 0 does.
    head = file.read(1)
    file.seek(begin)
    scanned = file
    if head != b"\x80":
        text = file.read().decode("ascii", "replace").replace("\ufffd", "?").replace("\\", ".")
        scanned = io.BytesIO(text.encode())
    for number, (operation, argument, place) in enumerate(pickletools.genops(scanned)):
        if operation.name in _MEMO and isinstance(argument, int) and argument > number:
            raise ValueError("it numbers what it remembers beyond what it holds")
        if operation.name == "FRAME" and isinstance(argument, int) and argument > size - (place or 0):
            raise ValueError("a frame reaches beyond its end")
    file.seek(begin)
