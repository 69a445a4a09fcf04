"""`stepwell config`."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from stepwell.cli import output
from stepwell.cli.options import settings, shared_options
from stepwell.cli.serve import flags_of, serve_options
from stepwell.server.settings import load, sources, strangers, without_password


@click.command()
@serve_options
@shared_options
def config(**given: Any) -> None:
    """Show the settings of `stepwell serve` that are in force, and where each came from.

    Takes the flags of `serve`. A flag beats the environment, which beats the file .env, which
    beats the default. Secrets are never shown.
    """
    flags = flags_of(given)
    wanted = load(flags)
    for line in strangers():
        output.stderr().print(line, style="yellow", soft_wrap=True)
    rows = sources(wanted, flags)
    url = without_password(wanted.url)
    if settings().json:
        output.document(
            {
                "store": url,
                "settings": {
                    row.name: {
                        "value": row.value,
                        "from": row.source,
                        "variable": row.variable,
                    }
                    for row in rows
                },
            }
        )
        return
    # The value is last: a long one is not cut, and makes room for itself alone.
    output.table(
        output.stdout(),
        ("setting", "variable", "from", "value", "what it is for"),
        [
            (
                row.name,
                row.variable,
                Text(row.source.partition(" ")[0], "dim" if row.source == "default" else "green"),
                row.value,
                Text(row.purpose, "dim"),
            )
            for row in rows
        ],
        below=4,
    )
    output.stdout().print(f"runs are kept in {url}", soft_wrap=True)
