-- Say who calls from now on; when the server lost what it had acknowledged to this caller, take the
-- runs of its workers away from them, since they believe what is not there.

local caller, answers = KEYS[2], KEYS[3]
local name, group, kept = take(), tonumber(take()), tonumber(take())
local now, forget_before = take(), take()
local workers = take_list()

local schema = tonumber(redis.call('GET', at('schema')) or '0')
if schema > 1 then return { schema, 0 } end
-- Also without memory: a first write that frees some lets the others pass, and runs can be deleted.
redis.call('UNLINK', at('nothing'))
redis.call('SET', at('schema'), '1')

local known = tonumber(redis.call('HGET', caller, 'group') or '-1')
local lost = group > 0
  and (known < group or (known == group and redis.call('HLEN', answers) < kept))
if lost then
  for _, worker in ipairs(workers) do
    for _, id in ipairs(redis.call('SMEMBERS', at('owned', worker))) do
      local run = fetch(id)
      redis.call('HSET', at('run', id), 'fence', run.fence + 1)
      release(run)
      reindex(run)
    end
  end
end
if known < group or lost then
  redis.call('UNLINK', answers)
  redis.call('HSET', caller, 'group', group)
end

-- Those who never said goodbye are forgotten in the end.
redis.call('ZADD', at('callers'), now, name)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', at('callers'), '-inf', forget_before,
  'LIMIT', 0, 100)) do
  redis.call('UNLINK', at('caller', old), at('answers', old))
  redis.call('ZREM', at('callers'), old)
end
return { 1, lost and 1 or 0 }
