"""The fork server of the kill tests, with a schema of a PostgreSQL server for every run.

python -m tests.stores.postgres_lives DIRECTORY_OF_THE_SERVERS_SOCKET
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from tests.crash import server

from stepwell.stores.postgres import PostgresStore


def _store(path: Path, **settings: Any) -> PostgresStore:
    schema = "l" + hashlib.sha256(str(path).encode()).hexdigest()[:20]
    where = f"host={sys.argv[1]}&connect_timeout=100"  # a halted machine is no lost server
    url = f"postgresql://tests@/postgres?{where}&schema={schema}"
    return PostgresStore(url, **settings)


if __name__ == "__main__":
    server.SQLiteStore = _store  # type: ignore[assignment,misc] # where it opens its stores
    server.main()
