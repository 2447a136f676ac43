"""Files from the hub; that it cannot be reached is found out at once, where its own library tries for half a minute."""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

REACH = 10.0  # seconds for the hub, or a proxy on the way to it, to answer
LASTS = 300.0  # seconds for which an answer holds: a worker loads its model anew for every stage

_answers: dict[str, tuple[float, str | None]] = {}  # address -> when it was asked, and why it is out of reach


def snapshot(repository: str, revision: str | None, wanted: Sequence[str]) -> Path:
    """Return the folder with the files of a commit that match a pattern, fetched where the cache lacks them.

    Raises:
        OSError: the hub cannot be reached and the cache does not hold the commit, or the hub refuses; in one line.
    """
    from huggingface_hub import errors, snapshot_download

    alone = out_of_reach()
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(wanted),
            ignore_patterns=["*/*"],
            local_files_only=alone is not None,
        )
    except (OSError, ValueError, errors.HfHubHTTPError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise OSError(alone or lines[0].rstrip(".")) from error
    return Path(folder)


def out_of_reach() -> str | None:
    """Return why nothing can be fetched from the hub, None where it answers, whatever it says; asked once in a while.

    `HF_ENDPOINT` and the usual variables of proxies hold. A certificate that is refused here is no reason: the hub's
    library may know others.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    asked, reason = _answers.get(constants.ENDPOINT, (float("-inf"), None))
    if time.monotonic() - asked > LASTS:
        reason = _silence(constants.ENDPOINT)
        _answers[constants.ENDPOINT] = time.monotonic(), reason
    return reason


def _silence(address: str) -> str | None:
    try:
        request = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(request, timeout=REACH).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return None
        return f"{address} cannot be reached ({reason})"
    return None
