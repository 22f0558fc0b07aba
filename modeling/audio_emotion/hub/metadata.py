"""The Hub's own names for licences or sizes of data sets, as its metadata wants them."""

from __future__ import annotations

HUB_LICENSES = {"odbl-1.0": "odbl"}  # where the Hub's name is not SPDX's in small letters


def hub_license(license_: str) -> str:
    """An SPDX expression as the Hub's metadata: one of its own names, or `other` and a name."""
    if license_.startswith("LicenseRef-") or " " in license_:
        return f"other\nlicense_name: {license_.removeprefix('LicenseRef-').replace(' ', '-').lower()}"
    return HUB_LICENSES.get(license_.lower(), license_.lower())


def size_category(rows: int) -> str:
    """The Hub's name for how many rows a data set has."""
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if rows < limit:
            return name
    return "n>1M"
