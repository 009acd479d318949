"""YAML in which no key stands twice: PyYAML would take the last value and say nothing."""

from __future__ import annotations

import yaml


class RepeatedKey(yaml.constructor.ConstructorError):
    """A key stands twice in one mapping; ``problem`` and ``problem_mark`` say which and where."""


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            # Merged mappings (<<) may repeat what they are merged into, as YAML means it.
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key {key.value} stands twice"
                    raise RepeatedKey(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_yaml(text: str):
    """Return what a YAML text holds.

    Raises
    ------
    yaml.YAMLError
        It is not valid, or a key stands twice (`RepeatedKey`).
    ValueError, RecursionError
        What PyYAML raises for dates that do not exist and for texts nested too deeply.
    """
    return yaml.load(text, _UniqueKeys)  # noqa: S506 - it is a SafeLoader
