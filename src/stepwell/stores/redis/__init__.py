"""The store on a Redis server (7 or later), for any number of machines.

Layers, each a file, from the bottom: `scripts` (the Lua by name), `errors` (what Redis's errors
mean), `place` (which server, what it survives), `line` (one connection), `jobs` (the verbs that
write, as calls and what their answers mean), `writer` (the one task that writes, in groups),
`listener` (hears of others' changes), `reads` (the verbs that read), and `store` (the async face).

Every verb that writes is one Lua script, so it is atomic; every key begins with the same hash tag,
so that they stand in one slot of a cluster.

Needs `pip install 'stepwell[redis]'`.
"""

from __future__ import annotations

from stepwell.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
