"""What is shipped: the wheel with its configurations, and the light top of the package."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import calib_ebm
from calib_ebm.classifier import EnergyClassifier
from calib_ebm.config_path import conf_dir
from calib_ebm.errors import InputError

SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python 3.11 knows filters from 3.11.4 on; the archive is our own."""
ROOT = Path(__file__).parent.parent


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """Build a wheel or an sdist with the backend of this environment: nothing is downloaded."""
    run("-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(target), ".", cwd=source)
    (built,) = target.iterdir()
    return built


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_carries_the_package_and_its_configurations_only(wheel: Path) -> None:
    files = contents(wheel)
    configurations = {
        f"calib_ebm/{path.relative_to(ROOT).as_posix()}": path.read_bytes()
        for path in (ROOT / "conf").rglob("*")
        if path.is_file()
    }
    code = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / "calib_ebm").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert configurations
    assert {name: text for name, text in files.items() if "dist-info/" not in name} == {
        **configurations,
        **code,
    }


def test_the_wheel_of_the_sdist_is_the_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", **SAFELY)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert contents(build("wheel", unpacked, tmp_path / "wheel")) == contents(wheel)


def test_the_wheel_finds_its_own_configurations_from_any_folder(
    wheel: Path, tmp_path: Path
) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    where = "from calib_ebm.config_path import conf_dir; print(conf_dir())"
    found = run("-c", where, cwd=elsewhere, PYTHONPATH=str(site))
    assert Path(found.strip()) == site.resolve() / "calib_ebm" / "conf"


def test_the_repository_finds_its_configurations() -> None:
    assert conf_dir() == ROOT.resolve() / "conf"


def test_a_strangers_folder_named_conf_is_not_taken(tmp_path: Path) -> None:
    package = tmp_path / "calib_ebm"
    (tmp_path / "conf").mkdir()
    with pytest.raises(InputError, match="No configurations"):
        conf_dir(package)
    (tmp_path / "pyproject.toml").touch()  # the control: a clone has both
    assert conf_dir(package) == tmp_path / "conf"


def test_the_wheel_has_the_package_s_version(wheel: Path) -> None:
    assert wheel.name.startswith(f"calib_ebm-{calib_ebm.__version__}-")


def test_public_names_are_loaded_from_their_homes() -> None:
    assert calib_ebm.EnergyClassifier is EnergyClassifier
    assert all(hasattr(calib_ebm, name) for name in calib_ebm.__all__)
    assert set(calib_ebm.__all__) <= set(dir(calib_ebm))
    with pytest.raises(AttributeError, match="no attribute 'NoSuchName'"):
        _ = calib_ebm.NoSuchName


def name_of(requirement: str) -> str:
    """The import name of a requirement such as `PyYAML>=6`."""
    (bare,) = re.findall(r"^[\w.-]+", requirement)
    name = bare.lower().replace("-", "_")
    return {"hydra_core": "hydra", "pyyaml": "yaml"}.get(name, name)


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.split(";")[0].strip() for line in lines if line and not line.startswith("#"))
    return dict(pin.lower().replace("-", "_").split("==") for pin in pins)


def test_what_is_imported_is_what_is_declared() -> None:
    imported = set()
    for file in (ROOT / "calib_ebm").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.split(".")[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {name_of(requirement) for requirement in project["dependencies"]}
    # Imported where it is asked for, with a sentence where it is missing.
    declared |= {name_of(requirement) for requirement in project["optional-dependencies"]["lora"]}
    assert imported - set(sys.stdlib_module_names) - {"calib_ebm"} == declared


def test_every_requirement_has_a_tested_version_that_fits() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    pins = pinned()
    for requirement in map(Requirement, (line for group in groups for line in group)):
        name = requirement.name.lower().replace("-", "_")
        if name != "calib_ebm":
            assert pins[name] in requirement.specifier, requirement
    assert pins["torch"] == "2.13.0"  # and no local suffix, which would exclude other builds
