"""What travels to the driver: the helper package as a zip, and the author's function as a module beside it."""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from airflow_incremental.core.errors import ArgumentError

#: The package that runs on the driver; it needs the standard library and pyspark.
DRIVER_PACKAGE = "airflow_incremental_spark"

#: The same for every build, so that the same content makes the same archive.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def driver_folder() -> Path:
    """Return where the helper package is installed, without importing it."""
    spec = importlib.util.find_spec(DRIVER_PACKAGE)
    if spec is None or spec.origin is None:
        raise ArgumentError(
            f"the package {DRIVER_PACKAGE!r} is not installed beside this one",
            expected="both, from one wheel",
            hint="install airflow-incremental again on the worker",
        )
    return Path(spec.origin).parent


def write_archive(to: Path, modules: Mapping[str, bytes]) -> Path:
    """Write the helper package, and modules of the author's, as a zip that Python imports from.

    :param to: the file to write.
    :param modules: name of a module -> its source.
    """
    folder = driver_folder()
    members = {
        f"{DRIVER_PACKAGE}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*.py")
    }
    members.update({f"{name}.py": source for name, source in modules.items()})
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, members[name])
    return to


def digest(parts: Iterable[str | bytes]) -> str:
    """Return a digest of texts and contents in their order, 16 hex digits."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "big"))
        found.update(data)
    return found.hexdigest()[:16]
