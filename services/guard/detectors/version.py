"""By which rules was looked: stands with every verdict, so that an examiner can tell later."""

import hashlib
from importlib import metadata, resources


def _rules() -> str:
    """Version of the package, and a hash of the rules as they stand in this folder."""
    files = sorted((file.name, file) for file in resources.files(__package__ or "").iterdir() if file.name.endswith(".py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for _, file in files)).hexdigest()[:8]
    try:
        return f"{metadata.version('sluice')}+{digest}"
    except metadata.PackageNotFoundError:
        return f"0+{digest}"


RULES = _rules()
