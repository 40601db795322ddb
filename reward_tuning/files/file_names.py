"""Names that no file can have."""

from reward_tuning.files.clean_text import has_lone_surrogate

MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4095  # limits of Linux; other systems allow no more


def file_name_fault(text: str) -> str | None:
    """Return why no file can have this name, or None.

    The operating system answers such names with errors that do not name the cause.
    """
    if "\0" in text:
        return "a file name cannot contain a NUL character"
    if has_lone_surrogate(text):
        return (
            "it contains an invalid Unicode character (lone surrogate), so it is not UTF-8; rename "
            "the file"
        )
    longest = max(len(part.encode()) for part in text.split("/"))
    if longest > MAX_NAME_BYTES or len(text.encode()) > MAX_PATH_BYTES:
        return (
            f"too long for a file name: {longest} bytes between two slashes (allowed: "
            f"{MAX_NAME_BYTES}), {len(text.encode())} in all (allowed: {MAX_PATH_BYTES})"
        )
    return None
