"""Names of files as they can be shown: on a terminal, in a figure, in a file of UTF-8."""


def shown(name: object, but: str = "") -> str:
    """A name, path or message in which everything that does not print is an escape.

    That is control characters, marks that turn the direction of writing, and bytes that are no UTF-8, which Python
    reads as lone surrogates: `a\\xffb` for the bytes 61 ff 62, `\\x1b` for the escape that a terminal obeys. What is
    in `but` stays.
    """
    return "".join(each if each.isprintable() or each in but else _escape(each) for each in str(name))


def _escape(character: str) -> str:
    place = ord(character)
    if 0xDC80 <= place <= 0xDCFF:  # `surrogateescape`: a byte that was not UTF-8
        return f"\\x{place - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
