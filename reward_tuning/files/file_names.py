"""Names that no file can have."""

MOST_NAME_BYTES, MOST_PATH_BYTES = 255, 4095  # of Linux; others take no more


def file_name_fault(text: str) -> str | None:
    """Why no file can have this name, or None: such names end in errors of the operating system."""
    if "\0" in text:
        return "no name of a file holds a NUL character"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return "it holds a lone surrogate, so it is not UTF-8; rename the file"
    longest = max(len(part.encode()) for part in text.split("/"))
    if longest > MOST_NAME_BYTES or len(text.encode()) > MOST_PATH_BYTES:
        return (
            f"too long for a file: {longest} bytes between two slashes (most are "
            f"{MOST_NAME_BYTES}), {len(text.encode())} in all (most are {MOST_PATH_BYTES})"
        )
    return None
