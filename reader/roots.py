"""Where the data sets lie: command line, environment, ``paths.yaml``, in this order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable, Mapping

import yaml

from reader.errors import DataError
from reader.unique_yaml import load_yaml

NAMES = ("chairs", "things3d", "sintel", "kitti", "hd1k", "pairs")
TEXTURES = "textures"  # the pictures that synthetic scenes are made of; has a root like a data set


def parse_roots(arguments: Iterable[str]) -> dict[str, str]:
    """Turn ``NAME=DIR`` arguments into a dictionary for `find_root`.

    Raises
    ------
    DataError
        An argument is not of that form, or names an unknown data set or one data set twice.
    """
    roots: dict[str, str] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not equals or not folder:
            raise DataError(f"{argument!r} is not of the form NAME=DIR")
        _check_name(name, "the command line")
        if name in roots:
            raise DataError(f"{name} is given two roots, {roots[name]} and {folder}")
        roots[name] = folder
    return roots


def find_root(
    name: str, given: Mapping[str, str], paths_file: str | os.PathLike | None = None
) -> Path | None:
    """Find the root of a data set.

    The first that says so wins: ``given``, the variable ``MASKFLOWNET_NAME`` of the environment
    (for instance ``MASKFLOWNET_CHAIRS``; empty counts as unset), the YAML file. ``~`` is the user's
    home.

    Parameters
    ----------
    name : str
        One of `NAMES` or `TEXTURES`.
    given : mapping
        Roots of the command line by data set name.
    paths_file : path, optional
        YAML file of ``name: folder`` lines; a relative folder starts at the file's own folder.

    Returns
    -------
    Path or None
        An existing folder, or ``None`` where nothing says where the set is.

    Raises
    ------
    DataError
        A name is unknown, the YAML file cannot be used, or the folder does not exist.
    """
    _check_name(name, "the caller")
    for other in given:
        _check_name(other, "the command line")
    variable = f"MASKFLOWNET_{name.upper()}"
    if name in given:
        folder, source = Path(given[name]), "the command line"
    elif os.environ.get(variable):
        folder, source = Path(os.environ[variable]), variable
    else:
        listed = read_paths(paths_file) if paths_file is not None else {}
        if name not in listed:
            return None
        folder, source = listed[name], os.fspath(paths_file)
    folder = folder.expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}, the root of {name} from {source}, is not an existing folder")
    return folder


def read_paths(paths_file: str | os.PathLike) -> dict[str, Path]:
    """Read a YAML file of ``name: folder`` lines.

    Raises
    ------
    DataError
        The file cannot be read, or holds anything but folders of known data sets.
    """
    try:
        with open(paths_file, encoding="utf-8") as file:
            content = load_yaml(file.read())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{paths_file} cannot be read as a list of roots: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise DataError(f"{paths_file} must hold lines of the form NAME: FOLDER")
    for name, folder in content.items():
        _check_name(name, os.fspath(paths_file))
        if not isinstance(folder, str) or not folder:
            raise DataError(f"{paths_file} gives {name} the root {folder!r}, which is not a folder")
    start = Path(paths_file).parent
    return {name: start / Path(folder).expanduser() for name, folder in content.items()}


def _check_name(name: object, source: str) -> None:
    if name not in (*NAMES, TEXTURES):
        raise DataError(
            f"{name!r} from {source} is no data set, only {', '.join(NAMES)} are; "
            f"{TEXTURES} are the pictures of synthetic scenes"
        )
