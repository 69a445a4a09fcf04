"""Documents in files: JSON, and YAML when its reader is installed. Nothing is checked here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepwell.authoring.strict import KeyTwice, strict_json
from stepwell.errors import DocumentError

MAX_BYTES = 1024 * 1024
"""The size of a document, and of a request."""


def read_file(path: Path) -> Any:
    """What a JSON or YAML file holds; nothing is checked. Raises `DocumentError`, `OSError`."""
    if path.stat().st_size > MAX_BYTES:
        raise DocumentError([f"{path}: a document has at most {MAX_BYTES} bytes"])
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError([f"{path} is not UTF-8 text: {error.reason}"]) from error
    if path.suffix.lower() not in (".yaml", ".yml"):
        try:
            return strict_json(text)
        except KeyTwice as error:
            raise DocumentError([f"{path}: {error}"]) from error
        except (ValueError, RecursionError) as error:
            raise DocumentError([f"{path} is no JSON: {error}"]) from error
    return _read_yaml(path, text)


def _read_yaml(path: Path, text: str) -> Any:
    try:
        import yaml  # an extra
    except ImportError:
        raise DocumentError(
            [f"{path}: reading YAML needs PyYAML: pip install 'stepwell[yaml]'"]
        ) from None

    class Strict(yaml.SafeLoader):
        """Refuses a key that is there twice, as `strict_json` does."""

        def compose_mapping_node(self, anchor: Any) -> Any:
            # As it is written: later on it also has what it was merged with.
            node = super().compose_mapping_node(anchor)
            seen: set[object] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if (key.tag, key.value) in seen:
                    raise KeyTwice(f"line {key.start_mark.line + 1}: {key.value:.80}")
                seen.add((key.tag, key.value))
            return node

    try:
        return yaml.load(text, Strict)  # noqa: S506 - it is a safe one
    except KeyTwice as error:
        raise DocumentError([f"{path}: {error}"]) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DocumentError([f"{path} is no YAML: {error}"]) from error
