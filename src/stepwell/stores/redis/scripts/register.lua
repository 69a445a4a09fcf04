-- Announce a worker, or renew its lease.

local id, till, row = take(), take(), take()
redis.call('ZADD', at('until'), till, id)
redis.call('HSET', at('workers'), id, row)
return answer(true)
