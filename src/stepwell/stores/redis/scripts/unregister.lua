-- Forget a worker, and release all it owns.

local id = take()
redis.call('ZREM', at('until'), id)
redis.call('HDEL', at('workers'), id)
for _, owned in ipairs(redis.call('SMEMBERS', at('owned', id))) do
  local run = fetch(owned)
  release(run)
  reindex(run)
end
return answer(true)
