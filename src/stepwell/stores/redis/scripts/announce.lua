-- Say who calls from now on; when the server lost what it had acknowledged, take every run away from
-- whoever believes to have it.
--
-- A claim that was lost may have been given again with the same fence, so the fence of every run
-- that may go on leaps past those. One caller does it for all: the epoch says that it was done.

local caller, answers = KEYS[2], KEYS[3]
local name, group, kept = take(), tonumber(take()), tonumber(take())
local epoch, now, forget_before = tonumber(take()), take(), take()
local LEAP = 1000

local schema = tonumber(redis.call('GET', at('schema')) or '0')
if schema > 1 then return { schema, 0, 0 } end
-- Also without memory: a first write that frees some lets the others pass, and runs can be deleted.
redis.call('UNLINK', at('nothing'))
redis.call('SET', at('schema'), '1')

local function take_away(id)
  local run = fetch(id)
  redis.call('HSET', at('run', id), 'fence', run.fence + LEAP)
  release(run)
  reindex(run)
end

local known = tonumber(redis.call('HGET', caller, 'group') or '-1')
local lost = group > 0
  and (known < group or (known == group and redis.call('HLEN', answers) < kept))
local now_epoch = tonumber(redis.call('GET', at('epoch')) or '0')
if lost and now_epoch <= epoch then
  for _, owner in ipairs(redis.call('SMEMBERS', at('owners'))) do
    for _, id in ipairs(redis.call('SMEMBERS', at('owned', owner))) do take_away(id) end
  end
  for _, status in ipairs({ 'queued', 'running', 'waiting', 'parked' }) do
    for _, id in ipairs(redis.call('ZRANGE', at('status', status), 0, -1)) do take_away(id) end
  end
  now_epoch = epoch + 1
  redis.call('SET', at('epoch'), now_epoch)
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
return { 1, lost and 1 or 0, now_epoch }
