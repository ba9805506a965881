"""Where the configurations are: inside the package in a wheel, at the top in the repository."""

from __future__ import annotations

from pathlib import Path

from calib_ebm.errors import InputError

_PACKAGE = Path(__file__).resolve().parent


def conf_dir(package: Path = _PACKAGE) -> Path:
    """Return the folder with the shipped configurations.

    Args:
        package: the folder of the installed package.

    Raises:
        InputError: there is none, as when only the package's folder was copied.

    >>> conf_dir().name
    'conf'
    """
    in_wheel = package / "conf"
    if in_wheel.is_dir():
        return in_wheel
    repository = package.parent
    # A folder named conf beside an installed package belongs to somebody else.
    if (repository / "pyproject.toml").is_file() and (repository / "conf").is_dir():
        return repository / "conf"
    raise InputError(
        f"No configurations belong to the package in {package}.",
        f"{in_wheel} (a wheel) or {repository / 'conf'} (a clone of the repository)",
        "Install again from a wheel, or with `pip install -e .` in a whole clone.",
    )
